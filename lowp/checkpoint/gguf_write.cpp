#include "lowp/checkpoint/gguf_write.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/gguf_blocks.h"
#include "lowp/checkpoint/gguf_config.h"
#include "lowp/checkpoint/gguf_tokenizer.h"
#include "lowp/checkpoint/model_config.h"

namespace lowp::checkpoint {
namespace {

constexpr std::uint64_t kAlignment = 32;
using Metadata = std::map<std::string, GgufValue, std::less<>>;

// general.file_type of a file whose weights are mostly of this type.
constexpr std::pair<std::string_view, std::uint32_t> kFileTypes[] = {
    {"F32", 0},   {"F16", 1},   {"Q4_0", 2},  {"Q4_1", 3},  {"Q8_0", 7},  {"Q5_0", 8},   {"Q5_1", 9},  {"Q2_K", 10},
    {"Q3_K", 12}, {"Q4_K", 15}, {"Q5_K", 17}, {"Q6_K", 18}, {"BF16", 32}, {"MXFP4", 38}, {"NVFP4", 39}};

// ---- bytes of the header

void put(std::string& out, const void* data, std::size_t size) { out.append(static_cast<const char*>(data), size); }
template <typename T>
void put_number(std::string& out, T value) {
  put(out, &value, sizeof value);
}
void put_string(std::string& out, std::string_view text) {
  put_number<std::uint64_t>(out, text.size());
  out += text;
}

void put_scalar(std::string& out, GgufType type, const Json& value) {
  switch (type) {
    case GgufType::u16:
      return put_number(out, value.get<std::uint16_t>());
    case GgufType::u32:
      return put_number(out, value.get<std::uint32_t>());
    case GgufType::i32:
      return put_number(out, value.get<std::int32_t>());
    case GgufType::f32:
      return put_number(out, value.get<float>());
    case GgufType::boolean:
      return put_number(out, static_cast<std::uint8_t>(value.get<bool>()));
    case GgufType::string:
      return put_string(out, value.get_ref<const std::string&>());
    default:
      LOWP_CHECK(false, "metadata of type {} is not written", name(type));
  }
}

void put_value(std::string& out, std::string_view key, const GgufValue& value) {
  put_string(out, key);
  put_number(out, static_cast<std::uint32_t>(value.type));
  if (value.type != GgufType::array) return put_scalar(out, value.type, value.value);
  put_number(out, static_cast<std::uint32_t>(value.element));
  put_number<std::uint64_t>(out, value.value.size());
  for (const Json& element : value.value) put_scalar(out, value.element, element);
}

// ---- the tensors

// Where the bytes of a tensor, or of one expert's part of it, come from: one of the three.
struct Source {
  const StoredTensor* plain = nullptr;
  const QuantizedModule* module = nullptr;  // its blocks
  const QuantizedModule* scaled = nullptr;  // its scale for the whole matrix
};

struct Output {
  const GgmlType* type = nullptr;
  Shape shape;  // of one part
  std::string hugging_face;
  std::map<std::int64_t, Source> parts;  // by expert, or -1
};

class Job {
 public:
  Job(const Checkpoint& checkpoint, std::function<void(std::uint64_t, std::uint64_t)> progress)
      : checkpoint_(checkpoint), dialect_(detect_dialect(checkpoint)), progress_(std::move(progress)) {
    if (!checkpoint.config()) fail(ErrorCode::bad_input, "{}: config.json is missing", checkpoint.path());
    const Json& config = *checkpoint.config();
    const auto names = config.find("architectures");
    const std::string name = names != config.end() && names->is_array() && !names->empty() && (*names)[0].is_string()
                                 ? (*names)[0].get<std::string>()
                                 : "";
    architecture_ = find_gguf_architecture(name);
    if (!architecture_)
      fail(ErrorCode::unsupported, "{}: architecture {} has no name in GGUF that lowp knows", checkpoint.path(),
           quote(name));
    dims_ = *read_model_config(config, checkpoint.path() + "/config.json");
  }

  FileReport run(const std::string& path) {
    collect();
    const std::string header = make_header();
    OutputFile file(path);
    FileWriter& out = file.writer();
    out.append(header);
    pad(out);
    const std::uint64_t begin = out.size();
    for (const std::string& name : order_) {
      const Output& output = outputs_.at(name);
      if (name == kRopeFreqs) {
        out.append(std::as_bytes(std::span(rope_freqs_)));
      } else {
        for (const auto& [expert, source] : output.parts) out.append(bytes_of(output, source).bytes());
      }
      pad(out);
      if (progress_) progress_(out.size() - begin, total_);
    }
    report_.file_bytes = out.size();
    file.commit();
    return report_;
  }

 private:
  static constexpr const char* kRopeFreqs = "rope_freqs.weight";

  static void pad(FileWriter& out) {
    const std::string zeros(round_up(out.size(), kAlignment) - out.size(), '\0');
    out.append(zeros);
  }

  void collect() {
    std::set<std::string> taken;
    if (dialect_) modules_ = dialect_->modules(checkpoint_);
    for (const QuantizedModule& module : modules_) {
      for (const TensorEntry& entry : dialect_->layout(module)) taken.insert(entry.name);
      add_module(module);
    }
    for (const StoredTensor& tensor : checkpoint_.tensors())
      if (!taken.contains(tensor.entry.name) && !tensor.entry.name.ends_with("rotary_emb.inv_freq")) add_plain(tensor);
    rope_freqs_ = rope_freqs_of(*checkpoint_.config(), dims_.head_dim);
    if (!rope_freqs_.empty()) {
      outputs_[kRopeFreqs] = {find_ggml_type("F32"), {static_cast<std::int64_t>(rope_freqs_.size())}, "", {{-1, {}}}};
      order_.push_back(kRopeFreqs);
    }
    for (auto& [name, output] : outputs_) check_experts(name, output);
  }

  void add_module(const QuantizedModule& module) {
    const auto refuse = [&](const std::string& why) {
      fail(ErrorCode::unsupported, "{}: GGUF cannot hold recipe {}: {}", module.name, module.recipe.name, why);
    };
    if (const std::string why = gguf_dialect().refusal(module.recipe); !why.empty()) refuse(why);
    const GgmlType& type = *find_ggml_type(block_type_of(module.recipe.weight)->ggml);
    if (module.k % type.values != 0)
      refuse(
          fmt::format("K = {} is not a multiple of the {} values of a block of {}", module.k, type.values, type.name));
    add(module.name + ".weight", &type, {module.m, module.k}, {nullptr, &module, nullptr});
    if (module.recipe.weight.tensor_scale)
      add(module.name + ".scale", find_ggml_type("F32"), {1}, {nullptr, nullptr, &module});
    ++report_.modules;
  }

  void add_plain(const StoredTensor& tensor) {
    const TensorEntry& entry = tensor.entry;
    if (!is_high_precision(entry.dtype) || entry.shape.empty() || entry.shape.size() > 2)
      fail(ErrorCode::unsupported, "{}: tensor {}: GGUF has no place for {} {}", tensor.file->path(), quote(entry.name),
           name(entry.dtype), to_string(entry.shape));
    const bool as_f32 = entry.shape.size() == 1 || is_router(entry.name);
    add(entry.name, find_ggml_type(as_f32 ? "F32" : name(entry.dtype)), entry.shape, {&tensor, nullptr, nullptr});
  }

  static bool is_router(std::string_view name) {
    return name.ends_with(".mlp.gate.weight") || name.ends_with(".block_sparse_moe.gate.weight");
  }

  void add(const std::string& hugging_face, const GgmlType* type, const Shape& shape, Source source) {
    std::int64_t expert = -1;
    const auto name = gguf_name(*architecture_, hugging_face, &expert);
    if (!name)
      fail(ErrorCode::unsupported, "{}: tensor {} has no name in GGUF's architecture {}", checkpoint_.path(),
           quote(hugging_face), architecture_->gguf);
    const auto [at, is_new] = outputs_.try_emplace(*name);
    Output& output = at->second;
    if (is_new) {
      output = {type, shape, hugging_face, {}};
      order_.push_back(*name);
    }
    if (output.type != type || output.shape != shape)
      fail(ErrorCode::unsupported, "{}: experts are stacked in GGUF, and {} is {} {}, another {} {}",
           checkpoint_.path(), quote(hugging_face), type->name, to_string(shape), output.type->name,
           to_string(output.shape));
    LOWP_CHECK(output.parts.emplace(expert, source).second, "{} twice", hugging_face);
  }

  void check_experts(const std::string& name, const Output& output) const {
    const auto count = static_cast<std::int64_t>(output.parts.size());
    if (output.parts.begin()->first < 0 ? count == 1 : count == dims_.num_experts) return;
    fail(ErrorCode::bad_input, "{}: {} has {} of {} experts", checkpoint_.path(), name, count, dims_.num_experts);
  }

  std::string make_header() {
    Metadata metadata;
    const std::string where = checkpoint_.path() + "/config.json";
    const auto text = [&](const char* key, std::string_view value) {
      metadata[key] = {GgufType::string, GgufType::u32, std::string(value)};
    };
    text("general.architecture", architecture_->gguf);
    text("general.type", "model");
    config_to_gguf(*checkpoint_.config(), where, *architecture_, metadata);
    const auto tokenizer = checkpoint_.companion("tokenizer.json");
    if (!tokenizer)
      fail(ErrorCode::bad_input, "{}: tokenizer.json is missing, and llama.cpp reads it from the GGUF file",
           checkpoint_.path());
    tokenizer_to_gguf(*tokenizer, checkpoint_.companion("tokenizer_config.json").value_or(Json::object()),
                      *checkpoint_.config(), checkpoint_.path() + "/tokenizer.json", metadata);
    std::map<std::string_view, std::uint64_t> weights;  // by type, of matrices but the embedding
    for (const auto& [name, output] : outputs_)
      if (output.shape.size() == 2 && name != "token_embd.weight")
        weights[output.type->name] += static_cast<std::uint64_t>(element_count(output.shape)) * output.parts.size();
    const auto most =
        std::max_element(weights.begin(), weights.end(), [](auto& a, auto& b) { return a.second < b.second; });
    for (const auto& [type, id] : kFileTypes)
      if (most != weights.end() && most->first == type)
        metadata["general.file_type"] = {GgufType::u32, GgufType::u32, id};
    if (report_.modules > 0) metadata["general.quantization_version"] = {GgufType::u32, GgufType::u32, 2};

    std::string header = "GGUF";
    put_number<std::uint32_t>(header, 3);
    put_number<std::uint64_t>(header, order_.size());
    put_number<std::uint64_t>(header, metadata.size());
    // The architecture first: readers look at the start of the file.
    put_value(header, "general.architecture", metadata.at("general.architecture"));
    for (const auto& [key, value] : metadata)
      if (key != "general.architecture") put_value(header, key, value);
    for (const std::string& name : order_) {
      const Output& output = outputs_.at(name);
      Shape shape = output.shape;
      const bool stacked = output.parts.begin()->first >= 0;
      const auto experts = static_cast<std::int64_t>(output.parts.size());
      if (stacked && shape == Shape{1})
        shape = {experts};
      else if (stacked)
        shape.insert(shape.begin(), experts);
      put_string(header, name);
      put_number(header, static_cast<std::uint32_t>(shape.size()));
      for (auto size = shape.rbegin(); size != shape.rend(); ++size) put_number(header, *size);
      put_number(header, output.type->id);
      put_number(header, total_);
      total_ += round_up(static_cast<std::uint64_t>(element_count(shape) / output.type->values * output.type->bytes),
                         kAlignment);
    }
    return header;
  }

  // The bytes of one part, in GGUF's order.
  Tensor bytes_of(const Output& output, const Source& source) const {
    Tensor values;
    if (source.module) {
      values = pack_blocks(*find_block_type(output.type->name), dialect_->decode(checkpoint_, *source.module),
                           source.module->name);
    } else if (source.scaled) {
      values = one_f32(dialect_->decode(checkpoint_, *source.scaled).tensor_scale);
    } else if (output.type->plain == DType::f32) {
      values = copy_as_f32(source.plain->view());
      if (has_added_one(*architecture_, output.hugging_face))
        for (std::int64_t i = 0; i < element_count(output.shape); ++i) values.as<float>()[i] += 1;
    } else {
      values = copy(source.plain->view());
    }
    if (source.plain) source.plain->file->release(source.plain->view().bytes);
    if (!has_paired_rows(*architecture_, output.hugging_face) || source.scaled) return values;
    Tensor paired(values.dtype(), values.shape());
    const std::int64_t rows = output.shape[0];
    const std::size_t width = values.bytes().size() / static_cast<std::size_t>(rows);
    for (std::int64_t r = 0; r < rows; ++r)
      std::memcpy(paired.bytes().data() + static_cast<std::size_t>(r) * width,
                  values.bytes().data() + static_cast<std::size_t>(pairs_from_halves(r, dims_.head_dim)) * width,
                  width);
    return paired;
  }

  const Checkpoint& checkpoint_;
  const Dialect* dialect_;
  std::function<void(std::uint64_t, std::uint64_t)> progress_;
  const GgufArchitecture* architecture_ = nullptr;
  ModelConfig dims_;
  std::vector<QuantizedModule> modules_;
  std::vector<float> rope_freqs_;
  std::map<std::string, Output> outputs_;
  std::vector<std::string> order_;
  std::uint64_t total_ = 0;
  FileReport report_;
};

}  // namespace

void check_gguf_name(const std::string& path, bool overwrite) {
  if (!path.ends_with(".gguf")) fail(ErrorCode::usage, "{}: a GGUF file's name ends in .gguf", path);
  if (std::filesystem::exists(path) && !overwrite) fail(ErrorCode::io, "{}: exists already", path);
}

FileReport write_gguf(const Checkpoint& checkpoint, const std::string& path,
                      const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  return Job(checkpoint, progress).run(path);
}

}  // namespace lowp::checkpoint
