#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/eval/calibrate.h"
#include "lowp/formats/recipes.h"
#include "lowp/quant/quantize_checkpoint.h"

namespace lowp::cli {
namespace {

struct QuantizeOptions {
  std::string model, recipe, output, dialect, calibrate, scales = "fused";
  std::vector<std::string> algorithm;
  std::int64_t calibrate_tokens = 8192;
  bool overwrite = false, requantize = false, allow_skip = false, json = false;
};

// A recipe file ends in .json; everything else is a name.
quant::Rules rules(const std::string& recipe, quant::Algorithm algorithm) {
  if (!recipe.ends_with(".json")) return quant::Rules::single(formats::recipe(recipe), algorithm);
  if (algorithm != quant::Algorithm::absmax)
    fail(ErrorCode::usage, "{}: how weights are rounded stands in the rules of the file, not in --algorithm", recipe);
  return quant::Rules::parse(read_json(recipe, {8, 16 << 20}), recipe);
}

// Smallest and mean SQNR over layers; exact layers count as neither.
std::pair<double, double> sqnr_summary(const quant::QuantizeReport& report) {
  std::vector<double> finite;
  for (const auto& layer : report.layers)
    if (std::isfinite(layer.sqnr)) finite.push_back(layer.sqnr);
  if (finite.empty()) return {INFINITY, INFINITY};
  return {*std::min_element(finite.begin(), finite.end()),
          std::accumulate(finite.begin(), finite.end(), 0.0) / static_cast<double>(finite.size())};
}

void print_json(const QuantizeOptions& options, const quant::QuantizeReport& report, double seconds) {
  Json layers = Json::array();
  for (const auto& l : report.layers)
    layers.push_back({{"module", l.module},
                      {"recipe", l.recipe},
                      {"shape", {l.m, l.k}},
                      {"bytes", l.bytes},
                      {"bits_per_weight", l.bits_per_weight},
                      {"sqnr", json_number(l.sqnr)}});
  const auto [least, mean] = sqnr_summary(report);
  const Json all = {{"model", options.model},
                    {"recipe", options.recipe},
                    {"output", options.output},
                    {"dialect", report.dialect},
                    {"scales", options.scales},
                    {"quantized_weights", report.quantized_weights},
                    {"bits_per_weight", report.bits_per_weight()},
                    {"file_bytes", report.file_bytes},
                    {"sqnr_min", json_number(least)},
                    {"sqnr_mean", json_number(mean)},
                    {"layers", layers},
                    {"kept", report.kept},
                    {"skipped", report.skipped},
                    {"unmatched_rules", report.unmatched},
                    {"warnings", report.warnings},
                    {"seconds", seconds}};
  fmt::print("{}", json_line(all));
}

// "model.layers.*.mlp.up_proj" for any layer's.
std::string without_numbers(std::string_view module) {
  std::string pattern;
  while (!module.empty()) {
    const auto end = std::min(module.find('.'), module.size());
    const std::string_view part = module.substr(0, end);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    pattern += number ? "*" : part;
    if (end < module.size()) pattern += '.';
    module.remove_prefix(std::min(end + 1, module.size()));
  }
  return pattern;
}

// Modules that differ in numbers only (of layers, of experts) in one entry: "model.layers.*.mlp.up_proj (8)".
std::string in_short(const std::vector<std::string>& modules) {
  std::vector<std::pair<std::string, int>> entries;
  for (const std::string& module : modules) {
    const std::string pattern = without_numbers(module);
    const auto known = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.first == pattern; });
    if (known == entries.end())
      entries.emplace_back(pattern, 1);
    else
      ++known->second;
  }
  std::string text;
  for (const auto& [pattern, count] : entries) {
    text += text.empty() ? pattern : ", " + pattern;
    if (pattern.find('*') != std::string::npos) text += fmt::format(" ({})", count);
  }
  return text;
}

void print_text(const QuantizeOptions& options, const quant::QuantizeReport& report, double seconds) {
  Table table({"layer", "recipe", "shape", "bytes", "bits/weight", "SQNR dB"});
  for (const auto& l : report.layers)
    table.add({l.module, l.recipe, fmt::format("[{}, {}]", l.m, l.k), std::to_string(l.bytes),
               fmt::format("{:.3f}", l.bits_per_weight), decibel(l.sqnr)});
  if (!report.layers.empty()) fmt::print("{}", table.text());
  if (!report.kept.empty()) fmt::print("kept in high precision: {}\n", in_short(report.kept));
  for (const std::string& text : report.skipped) fmt::print("skipped: {}\n", text);
  for (const std::string& text : report.unmatched) fmt::print("warning: no layer matches '{}'\n", text);
  for (const std::string& text : report.warnings) fmt::print("warning: {}\n", text);
  if (report.layers.empty()) {
    fmt::print("no layer quantized, {} on disk, {:.1f} s -> {}\n", human_bytes(report.file_bytes), seconds,
               options.output);
    return;
  }
  const auto [least, mean] = sqnr_summary(report);
  fmt::print(
      "{} layers, {:.3f} bits a weight, {} on disk ({}), SQNR {} dB at least, {} dB on average, {:.1f} s -> {}\n",
      report.layers.size(), report.bits_per_weight(), human_bytes(report.file_bytes), report.dialect, decibel(least),
      decibel(mean), seconds, options.output);
}

quant::Calibrate calibrate(const QuantizeOptions& options) {
  if (options.calibrate.empty()) return nullptr;
  return [text = read_prose(options.calibrate),
          tokenizer = std::make_shared<const text::Tokenizer>(load_tokenizer(options.model)),
          tokens = options.calibrate_tokens](const std::string& path, const std::set<std::string>& grams) {
    models::Model model(path, {});
    Progress progress("calibrating");
    return eval::input_stats(model, *tokenizer, text, tokens, grams,
                             [&](auto done, auto total) { progress.update(done, total); });
  };
}

void run(const QuantizeOptions& options) {
  const Stopwatch watch;
  quant::QuantizeRequest request;
  request.model = options.model;
  request.output = options.output;
  const quant::Method method = quant::find_method(options.algorithm);
  request.rules = rules(options.recipe, method.algorithm);
  request.preparation = method.preparation;
  request.dialect = options.dialect;
  request.sharing = options.scales == "fused" ? quant::ScaleSharing::fused : quant::ScaleSharing::per_matrix;
  request.overwrite = options.overwrite;
  request.requantize = options.requantize;
  request.allow_skip = options.allow_skip;
  request.calibrate = calibrate(options);
  Progress progress("quantizing");
  request.progress = [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); };
  const quant::QuantizeReport report = quant::quantize_checkpoint(std::move(request));
  if (options.json)
    print_json(options, report, watch.seconds());
  else
    print_text(options, report, watch.seconds());
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* command = app.add_subcommand("quantize", "Quantize a checkpoint");
  add_threads_option(*command);
  command
      ->add_option("model", options->model, "a folder, a safetensors file, or org/name in the local Hugging Face cache")
      ->required();
  command->add_option("--recipe", options->recipe, "recipe name (see `lowp recipes`) or a JSON file of rules")
      ->required();
  command->add_option("-o,--output", options->output, "the folder to write; with gguf, a file .gguf")->required();
  command->add_option("--dialect", options->dialect,
                      checkpoint::dialect_list() +
                          "; by default the first of compressed-tensors, torchao and lowp that can hold the recipe");
  command
      ->add_option("--scales", options->scales,
                   "tensor-level scales: shared over q/k/v and gate/up, or one per matrix as torchao")
      ->check(CLI::IsMember({"fused", "per-matrix"}))
      ->capture_default_str();
  command
      ->add_option("--algorithm", options->algorithm,
                   fmt::format("how, or what is done before, or both: {}; absmax, the format's own rule, by default",
                               fmt::join(quant::method_names(), ", ")))
      ->delimiter(',');
  command->add_option("--calibrate", options->calibrate,
                      "a text file: what the model's inputs on it are decides activation scales of *_static recipes, "
                      "and algorithms (gptq, awq, smoothquant; mse weighs errors by them)");
  command->add_option("--calibrate-tokens", options->calibrate_tokens, "how many of its tokens")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "replace an existing model folder");
  command->add_flag("--requantize", options->requantize, "accept a model that is quantized already");
  command->add_flag("--allow-skip", options->allow_skip, "keep layers that do not fit the recipe, and list them");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Examples:\n"
      "  lowp quantize models/bookworm-8m --recipe int4 -o bookworm-int4\n"
      "  lowp quantize org/name --recipe nvfp4-bf16 --dialect compressed-tensors -o out\n"
      "  lowp quantize models/bookworm-8m --recipe int8-int8_static --calibrate book.txt -o static\n"
      "  lowp quantize models/bookworm-8m --recipe int4 --algorithm awq,gptq --calibrate book.txt -o good\n"
      "  lowp quantize models/bookworm-8m --recipe rules.json -o mixed\n\n"
      "rules.json is an ordered list, first match wins:\n"
      "  [{\"match\": \"*.down_proj\", \"recipe\": \"fp8\"}, {\"match\": \"re:.*layers\\\\.[01]\\\\..*\", \"recipe\": "
      "null},\n"
      "   {\"match\": \"lm_head\", \"recipe\": \"int8-bf16\"}, {\"match\": \"*\", \"recipe\": \"int4_g64_float-bf16\", "
      "\"algorithm\": \"hqq\"}]");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
