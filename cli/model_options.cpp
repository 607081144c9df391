#include "cli/model_options.h"

#include <filesystem>

#include "cli/command.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/threads.h"
#include "lowp/base/utf8.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/formats/element.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::cli {
namespace fs = std::filesystem;

void add_threads_option(CLI::App& command) {
  command
      .add_option_function<int>("--threads", set_thread_count,
                                "threads that compute; LOWP_THREADS, or the cores this process may use, if not given")
      ->check(CLI::Range(1, kMostThreads));
}

void add_weight_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--compute", options.compute, "dtype of the residual stream and of what activation quantizers see")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command
      .add_option("--head", options.head,
                  "the head that gives logits: bf16 as the checkpoint has it, same as the other layers, or a recipe")
      ->capture_default_str();
}

void add_recipe_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--recipe", options.recipe,
                  "a model of floats is quantized while it loads, each matrix by itself; `lowp quantize` also "
                  "calibrates, searches and writes")
      ->capture_default_str();
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  add_weight_options(command, options);
  command
      .add_option("--kv-cache-dtype", options.kv_cache,
                  "what keys and values are stored as; auto: the dtype of --compute, which loses nothing, or fp8 where "
                  "--attention is; f32 on the CPU only")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8", "int8"}))
      ->capture_default_str();
  command
      .add_option("--attention", options.attention,
                  "bf16: in the dtype of --compute; fp8: queries, keys, values and weights in 8 bits; with a Hadamard "
                  "transform of values, or of all three; generated tokens on GPUs round keys and values only")
      ->check(CLI::IsMember(std::vector<std::string>(ops::kAttentionModes.begin(), ops::kAttentionModes.end())))
      ->capture_default_str();
  command
      .add_option("--device", options.device, "where to compute: auto (a GPU, if there is one), cpu, cuda or cuda:N")
      ->capture_default_str();
  command
      .add_option("--invariance", options.invariance,
                  "batch: to the bit, what a sequence gets depends on nothing else in a step, nor on how its prompt is "
                  "cut; on GPUs that is slower, the CPU always does it")
      ->check(CLI::IsMember({"none", "batch"}))
      ->capture_default_str();
  command
      .add_option(
          "--operands", options.operands,
          "on a GPU, of products of more than 64 rows: exact, the recipe's own, in bf16 where 8 bits do not hold "
          "them; rebased, MX formats as e4m3 with one power of two a row, which loses less than the sums; "
          "rounded, also nvfp4, which loses up to 1/16 of a value")
      ->check(CLI::IsMember({"exact", "rebased", "rounded"}))
      ->capture_default_str();
  add_threads_option(command);
}

models::LoadOptions load_options(const ModelOptions& options) {
  models::LoadOptions load;
  load.device = ops::choose_device(options.device);
  load.operands = options.operands == "exact"     ? ops::Operands::exact
                  : options.operands == "rounded" ? ops::Operands::rounded
                                                  : ops::Operands::rebased;
  load.invariant = options.invariance == "batch";
  load.attention = *ops::find_attention_mode(options.attention);
  if (options.compute == "f32") load.compute = formats::Elem::f32;
  if (options.kv_cache != "auto")
    load.kv_cache = formats::find_element(options.kv_cache == "fp8" ? "e4m3" : options.kv_cache);
  load.recipe = formats::recipe(options.recipe);
  if (options.head == "same")
    load.head_as_others = true;
  else if (options.head != "bf16")
    load.head = formats::recipe(options.head);
  return load;
}

void add_step_tokens(CLI::App& command, std::optional<std::int64_t>& tokens) {
  command
      .add_option("--max-num-batched-tokens", tokens,
                  "tokens of a step; prompts are cut there; 2048, or on a GPU 4096, if not given")
      ->check(kAtLeastOne);
}

std::int64_t step_tokens(const ops::Device& device) { return device.is_cuda() ? 4096 : 2048; }

void check_cpu(const std::string& device) {
  if (device != "cpu" && device != "auto") fail(ErrorCode::unsupported, "--device {}: only the cpu does this", device);
}

std::string device_name(const ops::Device& device) {
  if (!device.is_cuda()) return device.name();
  return fmt::format("{} ({})", kernels::cuda::devices()[static_cast<std::size_t>(device.cuda)].name, device.name());
}

std::string read_prose(const std::string& path) {
  std::string text = read_text(path);
  if (text.empty()) fail(ErrorCode::bad_input, "{}: is empty", path);
  if (const std::size_t at = find_invalid_utf8(text); at != std::string::npos)
    fail(ErrorCode::bad_input, "{}: is not UTF-8: byte {:#04x} at offset {}", path,
         static_cast<unsigned char>(text[at]), at);
  return text;
}

std::string model_folder(const std::string& model) {
  const std::string path = checkpoint::resolve_model(model);
  if (fs::is_directory(path)) return path;
  if (checkpoint::is_gguf(path)) return "";
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

engine::GenerationConfig generation_config(const std::string& model) {
  const std::string folder = model_folder(model);
  return folder.empty() ? engine::GenerationConfig{} : engine::read_generation_config(folder);
}

Json read_tokenizer_config(const std::string& model) {
  const std::string folder = model_folder(model);
  if (folder.empty()) return *checkpoint::Checkpoint(model).companion("tokenizer_config.json");
  const std::string path = folder + "/tokenizer_config.json";
  return fs::exists(path) ? read_json(path) : Json(nullptr);
}

Json special_tokens(const Json& tokenizer_config) {
  Json tokens = Json::object();
  if (!tokenizer_config.is_object()) return tokens;
  for (const char* key : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    if (!tokenizer_config.contains(key)) continue;
    const Json& value = tokenizer_config[key];
    const Json& text = value.is_object() && value.contains("content") ? value["content"] : value;
    if (text.is_string()) tokens[key] = text;
  }
  return tokens;
}

std::optional<text::ChatTemplate> load_chat_template(const std::string& model, const std::string& given) {
  if (given == "plain") return text::ChatTemplate::plain();
  const Json config = read_tokenizer_config(model);
  const Json variables = special_tokens(config);
  const std::string folder = model_folder(model), own = folder + "/chat_template.jinja";
  const auto read = [&](const std::string& path) {
    try {
      return text::ChatTemplate(read_text(path), variables);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::io) throw;
      throw Error(e.code(), fmt::format("{}: {}", path, e.what()));
    }
  };
  if (!given.empty()) return read(given);
  if (!folder.empty() && fs::exists(own)) return read(own);
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  // One template, or a list of named ones.
  const Json& found = config["chat_template"];
  const Json* source = found.is_string() ? &found : nullptr;
  if (found.is_array())
    for (const Json& named : found)
      if (named.is_object() && named.contains("template") && named.contains("name") && named["name"] == "default")
        source = &named["template"];
  if (!source || !source->is_string())
    fail(ErrorCode::bad_input, "{}: chat_template in tokenizer_config.json is neither a text nor a list with a default",
         model);
  return text::ChatTemplate(source->get<std::string>(), variables);
}

text::Tokenizer load_tokenizer(const std::string& model) {
  fs::path path = checkpoint::resolve_model(model);
  if (!fs::is_directory(path) && checkpoint::is_gguf(path.string()))
    return text::Tokenizer::from_parsed(*checkpoint::Checkpoint(path.string()).companion("tokenizer.json"),
                                        path.string());
  if (!fs::is_directory(path)) path = path.parent_path();
  return text::Tokenizer::from_file((path / "tokenizer.json").string());
}

}  // namespace lowp::cli
