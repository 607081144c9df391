#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/formats/recipes.h"
#include "lowp/quant/method.h"
#include "lowp/report/machine.h"
#include "lowp/report/model_report.h"
#include "lowp/report/tune.h"

namespace lowp::cli {
namespace {

constexpr const char* kFormats =
    "int2_g64-bf16,int3_g128-bf16,int3_g64-bf16,int3_g32-bf16,int4_g128-bf16,int4_g64-bf16,int4_g32-bf16,int5_g128-"
    "bf16,"
    "int5_g64-bf16,int5_g32-bf16,int6_g128-bf16,int6_g64-bf16,int6_g32-bf16,int7_g128-bf16,int7_g64-bf16,int8_g32-bf16,"
    "mxfp4-bf16,nvfp4-bf16,fp8-bf16,mxfp8-bf16";

struct TuneOptions {
  std::string model, output, page, calibrate, formats = kFormats, algorithm = "absmax";
  std::int64_t tokens = 4096;
  double budget_bits = 0, max_kl = 0;
  bool json = false;
};

std::unique_ptr<OutputFile> open_output(const std::string& path) {
  return path.empty() ? nullptr : std::make_unique<OutputFile>(path);
}

Json to_json(const report::TuneReport& result, double seconds) {
  const auto point = [](const report::TunePoint& p) {
    return Json{{"name", p.name}, {"bits_per_weight", p.bits_per_weight}, {"kl", p.kl}, {"kl_stderr", p.kl_stderr}};
  };
  Json parts = Json::array(), uniform = Json::array(), frontier = Json::array();
  for (const report::TunePart& part : result.parts)
    parts.push_back({{"patterns", part.patterns},
                     {"weights", part.weights},
                     {"recipe", result.recipes[part.chosen]},
                     {"kl", part.kl}});
  for (const report::TunePoint& p : result.uniform) uniform.push_back(point(p));
  for (const report::TunePoint& p : result.frontier) {
    frontier.push_back(point(p));
    for (const std::size_t r : p.choice) frontier.back()["recipes"].push_back(result.recipes[r]);
  }
  return {{"model", result.model}, {"recipes", result.recipes}, {"chosen", point(result.chosen)},
          {"parts", parts},        {"uniform", uniform},        {"frontier", frontier},
          {"seconds", seconds}};
}

void print_text(const TuneOptions& options, const report::TuneReport& result, double seconds) {
  Table parts({"layers", "recipe", "KL alone"});
  for (const report::TunePart& part : result.parts)
    parts.add({fmt::format("{}", fmt::join(part.patterns, ", ")), result.recipes[part.chosen],
               fmt::format("{:.6f}", part.kl[part.chosen])});
  Table points({"recipe", "bits/weight", "KL", "standard error"});
  const auto add = [&](const report::TunePoint& p) {
    points.add({p.name, fmt::format("{:.3f}", p.bits_per_weight), fmt::format("{:.6f}", p.kl),
                fmt::format("{:.6f}", p.kl_stderr)});
  };
  for (const report::TunePoint& p : result.uniform) add(p);
  for (const report::TunePoint& p : result.frontier) add(p);
  add(result.chosen);
  fmt::print("{}\n{}{}: {:.3f} bits a weight, KL {:.6f}, {:.1f} s -> {}\n", parts.text(), points.text(),
             result.chosen.name, result.chosen.bits_per_weight, result.chosen.kl, seconds, options.output);
}

void run(const TuneOptions& options) {
  const Stopwatch watch;
  if ((options.budget_bits > 0) == (options.max_kl > 0))
    fail(ErrorCode::usage, "one of --budget-bits and --max-kl is required");
  report::TuneRequest request;
  request.model = options.model;
  request.recipes = report::parse_recipes(options.formats);
  request.algorithm = quant::find_algorithm(options.algorithm);
  if (request.algorithm == quant::Algorithm::gptq)
    fail(ErrorCode::usage,
         "--algorithm gptq: tuning quantizes every layer many times; tune with mse, then quantize by "
         "the recipe file");
  for (const formats::Recipe& recipe : request.recipes)
    if (const std::string wrong = quant::refusal(request.algorithm, recipe.weight); !wrong.empty())
      fail(ErrorCode::usage, "{}", wrong);
  const auto file = open_output(options.output), page = open_output(options.page);
  request.text = read_prose(options.calibrate);
  request.tokens = options.tokens;
  if (options.budget_bits > 0) request.budget_bits = options.budget_bits;
  if (options.max_kl > 0) request.max_kl = options.max_kl;
  request.frontier = page != nullptr || options.json;
  Progress progress("tuning");
  request.progress = [&](double share, const std::string&) {
    progress.update(static_cast<std::uint64_t>(share * 1e6), 1000000);
  };
  const report::TuneReport result = report::tune(request, load_tokenizer(options.model));
  file->writer().append(report::tune_rules(result, request.algorithm).dump(2) + "\n");
  file->commit();
  if (page) {
    page->writer().append(report::tune_page(result, report::about(report::this_machine(LOWP_VERSION))));
    page->commit();
  }
  if (options.json)
    fmt::print("{}", json_line(to_json(result, watch.seconds())));
  else
    print_text(options, result, watch.seconds());
}

}  // namespace

void add_tune(CLI::App& app) {
  auto options = std::make_shared<TuneOptions>();
  CLI::App* command = app.add_subcommand(
      "tune", "Find the format of each layer that keeps a model closest to the original for so many bits a weight");
  add_threads_option(*command);
  command
      ->add_option("model", options->model, "a folder, a safetensors file, or org/name in the local Hugging Face cache")
      ->required();
  command->add_option("-o,--output", options->output, "the recipe file to write, for `lowp quantize --recipe`")
      ->required();
  command->add_option("--budget-bits", options->budget_bits, "bits a weight of the quantized layers, at most")
      ->check(CLI::Range(1.0, 16.0));
  command
      ->add_option("--max-kl", options->max_kl, "KL divergence from the original, at most; as few bits as that takes")
      ->check(CLI::Range(1e-9, 100.0));
  command->add_option("--calibrate", options->calibrate, "the text that KL is measured on")->required();
  command->add_option("--calibrate-tokens", options->tokens, "how many of its tokens")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command->add_option("--formats", options->formats, "recipes that a layer may get, with commas")
      ->capture_default_str();
  command->add_option("--algorithm", options->algorithm, "how weights are rounded, here and by the recipe file")
      ->check(CLI::IsMember({"absmax", "mse", "hqq"}))
      ->capture_default_str();
  command->add_option("--html", options->page, "a page to write: size against KL of all recipes and mixtures");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Examples:\n"
      "  lowp tune models/bookworm-8m --budget-bits 4.5 --calibrate book.txt -o mixed.json --html mixed.html\n"
      "  lowp tune models/bookworm-8m --max-kl 0.02 --formats q3_k-bf16,q4_k-bf16,q6_k-bf16 --calibrate book.txt -o "
      "mixed.json\n"
      "  lowp quantize models/bookworm-8m --recipe mixed.json -o mixed");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
