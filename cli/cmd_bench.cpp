#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "bench/cases.h"
#include "bench/cpu_device.h"
#include "bench/cuda_device.h"
#include "bench/model_bench.h"
#include "bench/profile.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/formats/recipes.h"
#include "lowp/models/shapes.h"
#include "lowp/ops/device.h"

namespace lowp::cli {
namespace {

struct KernelOptions {
  std::string device = "auto", dtype = "bf16", compare;
  std::vector<std::string> ops;
  bench::Selection selection;
  bench::Effort effort;
  bool json = false;
};

std::unique_ptr<bench::Device> find_device(const std::string& name) {
  const ops::Device device = ops::choose_device(name);
  return device.is_cuda() ? bench::cuda_device(device.cuda) : bench::cpu_device();
}

std::string shape(const bench::Row& row) {
  std::string text;
  for (const std::int64_t size : {row.m, row.n, row.k})
    if (size) text += (text.empty() ? "" : " x ") + std::to_string(size);
  return text;
}

std::string rate(double per_second, bench::Limit::Of of) {
  return fmt::format("{:.1f} {}", per_second / 1e9, of == bench::Limit::Of::bytes ? "GB/s" : "GOP/s");
}

std::string milliseconds(double seconds) { return fmt::format("{:.3f}", seconds * 1e3); }

void print_limits(const bench::Device& device, const std::vector<bench::Row>& limits) {
  fmt::print("{}\n\n", device.description());
  Table table({"limit", "measured", "what"});
  for (std::size_t i = 0; i < limits.size(); ++i)
    table.add({limits[i].limit_name, rate(limits[i].limit, device.limits()[i].of), device.limits()[i].meaning});
  fmt::print("{}\n", table.text());
}

void print_rows(const bench::Device& device, const std::vector<bench::Row>& rows) {
  const bool compared = std::any_of(rows.begin(), rows.end(), [](const bench::Row& r) { return r.ratio.has_value(); });
  std::vector<std::string> header = {"op", "recipe", "shape", "ms", "min", "max", "runs", "rate", "limit", "share %"};
  if (compared) header.insert(header.end(), {"other ms", "ratio"});
  Table table(header);
  for (const bench::Row& row : rows) {
    const auto limit = std::find_if(device.limits().begin(), device.limits().end(),
                                    [&](const bench::Limit& l) { return l.name == row.limit_name; });
    const auto [low, high] = std::minmax_element(row.samples.begin(), row.samples.end());
    std::vector<std::string> cells = {row.op,
                                      row.recipe,
                                      shape(row),
                                      milliseconds(row.seconds),
                                      milliseconds(*low),
                                      milliseconds(*high),
                                      std::to_string(row.samples.size()),
                                      rate(row.share * row.limit, limit->of),
                                      fmt::format("{} {}", row.limit_name, rate(row.limit, limit->of)),
                                      fmt::format("{:.0f}", row.share * 100)};
    if (compared) {
      cells.push_back(row.peer_seconds ? milliseconds(*row.peer_seconds) : "-");
      cells.push_back(row.ratio ? fmt::format("{:.2f}", *row.ratio) : "-");
    }
    table.add(cells);
  }
  fmt::print("{}", table.text());
}

void run_kernels(KernelOptions& options) {
  const std::unique_ptr<bench::Device> device = find_device(options.device);
  for (const DType type : {DType::bf16, DType::f16, DType::f32})
    if (formats::name(element_of(type)) == options.dtype) options.selection.dtype = type;
  const std::vector<bench::Row> others =
      options.compare.empty() ? std::vector<bench::Row>{} : bench::read_rows(options.compare);
  std::vector<bench::Case> cases;
  for (const std::string& family : options.ops.empty() ? bench::families(*device) : options.ops)
    for (bench::Case& found : bench::cases(family, *device, options.selection)) cases.push_back(std::move(found));

  const std::vector<bench::Row> limits = bench::probe_limits(*device);
  if (options.json)
    for (const bench::Row& row : limits) fmt::print("{}", json_line(to_json(row)));
  else
    print_limits(*device, limits);
  Progress progress("measuring");
  std::vector<bench::Row> rows;
  for (const bench::Case& what : cases) {
    rows.push_back(bench::measure(what, *device, options.effort));
    if (!options.compare.empty()) bench::compare({&rows.back(), 1}, others, options.compare);
    if (options.json) fmt::print("{}", json_line(to_json(rows.back())));
    progress.update(rows.size(), cases.size());
  }
  if (!options.json) print_rows(*device, rows);
}

void add_kernels(CLI::App& bench) {
  auto options = std::make_shared<KernelOptions>();
  CLI::App* command = bench.add_subcommand("kernels", "Time each kernel beside the machine's limit");
  command->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command
      ->add_option(
          "--op", options->ops,
          "families of kernels: cast, gemm, sample; on a GPU cast, experts, front, dequantize, small, gemm, attention, "
          "layers, sample (all that the device has)")
      ->delimiter(',');
  command
      ->add_option("--recipe,--format", options->selection.recipes,
                   "formats (of casts), recipes (of products), cache types (of attention) or ways to sample, separated "
                   "by commas")
      ->delimiter(',');
  command->add_option("--dtype", options->dtype, "type of high-precision operands")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->capture_default_str();
  command->add_option("-m", options->selection.m, "rows")->check(kAtLeastOne);
  command->add_option("-n", options->selection.n, "output columns of products; the vocabulary of samples")
      ->check(kAtLeastOne);
  command->add_option("-k", options->selection.k, "columns; the inner dimension of products")->check(kAtLeastOne);
  command->add_option("--samples", options->effort.most, "most runs of a kernel")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command->add_option("--seconds", options->effort.seconds, "no more runs of a kernel after this time")
      ->capture_default_str();
  command->add_option("--compare", options->compare, "JSON lines of another run: adds its times and the ratio");
  command->add_flag("--json", options->json, "JSON lines on standard output");
  command->footer(
      "Every time is the median of many runs; before each run the limit that bounds it is probed, because machines "
      "drift.\nshare = work / time / limit. Threads: LOWP_THREADS.\n\nExamples:\n"
      "  lowp bench kernels --op cast\n"
      "  lowp bench kernels --op gemm --format int8-int8,mxfp4-int8\n"
      "  lowp bench kernels --op cast --format mxfp8,nvfp4 --dtype f32 --json > before.json\n"
      "  lowp bench kernels --op cast --format mxfp8,nvfp4 --dtype f32 --compare before.json\n"
      "  lowp bench kernels --device cuda --op experts --format mxfp8");
  command->callback([options] { run_kernels(*options); });
}

struct WholeModelOptions {
  std::string model, shapes, compare;
  std::vector<std::string> recipes = {"bf16"};
  ModelOptions load;
  bench::ModelBench what;
  bool json = false, profile = false;
};

// One line a row, as soon as it is there: a test takes from seconds to a minute.
void print_model_header(const models::Model& model, const bench::Device& device, double load_seconds) {
  fmt::print("{}, {} streamed a token, ready in {:.1f} s\n{}\n{}{}\n", model.recipe(),
             human_bytes(model.streamed_bytes()), load_seconds, device.description(), model.memory_plan(),
             model.memory_plan().empty() ? "" : "\n");
  fmt::print("{:<8}  {:>9}  {:>10}  {:>10}  {:>10}  {:<24}  {:>7}  {:>5}\n", "test", "tokens/s", "ms", "min", "max",
             "limit", "share %", "ratio");
  std::fflush(stdout);
}

void print_model_row(const bench::Row& row, const bench::Device& device) {
  if (row.samples.empty()) {
    fmt::print("peak memory {}\n", human_bytes(row.bytes));
    return;
  }
  const auto limit = std::find_if(device.limits().begin(), device.limits().end(),
                                  [&](const bench::Limit& l) { return l.name == row.limit_name; });
  const auto [low, high] = std::minmax_element(row.samples.begin(), row.samples.end());
  const double tokens = static_cast<double>(row.m) * static_cast<double>(std::max<std::int64_t>(row.k, 1));
  fmt::print("{:<8}  {:>9.2f}  {:>10}  {:>10}  {:>10}  {:<24}  {:>7.0f}  {:>5}\n", row.op, tokens / row.seconds,
             milliseconds(row.seconds), milliseconds(*low), milliseconds(*high),
             fmt::format("{} {}", row.limit_name, rate(row.limit, limit->of)), row.share * 100,
             row.ratio ? fmt::format("{:.2f}", *row.ratio) : "-");
  std::fflush(stdout);
}

// The kernels of a test, of all recipes side by side: microseconds of a step, and the share of the limit.
void print_profiles(const std::vector<std::string>& recipes, std::span<const bench::StepProfile> profiles) {
  std::vector<std::string> header = {profiles[0].test + ", us (share of the limit, %)"}, names;
  header.insert(header.end(), recipes.begin(), recipes.end());
  Table table(header);
  for (const bench::StepProfile& profile : profiles)
    for (const bench::KernelTime& kernel : profile.kernels)
      if (std::find(names.begin(), names.end(), kernel.name) == names.end()) names.push_back(kernel.name);
  const auto row = [&](const std::string& name, const auto& cell) {
    std::vector<std::string> cells = {name};
    for (const bench::StepProfile& profile : profiles) cells.push_back(cell(profile));
    table.add(cells);
  };
  for (const std::string& name : names)
    row(name, [&](const bench::StepProfile& profile) {
      for (const bench::KernelTime& kernel : profile.kernels)
        if (kernel.name == name)
          return fmt::format("{:.1f}{}", kernel.seconds * 1e6,
                             kernel.share > 0 ? fmt::format(" ({:.0f})", kernel.share * 100) : "");
      return std::string("-");
    });
  row("together", [](const bench::StepProfile& profile) {
    double sum = 0;
    for (const bench::KernelTime& kernel : profile.kernels) sum += kernel.seconds;
    return fmt::format("{:.1f}", sum * 1e6);
  });
  row("the step as it runs",
      [](const bench::StepProfile& profile) { return fmt::format("{:.1f}", profile.seconds * 1e6); });
  fmt::print("{}\n", table.text());
}

void profile_models(const WholeModelOptions& options, bench::Device& device,
                    const std::function<std::unique_ptr<models::Model>(const std::string& recipe)>& load) {
  std::vector<std::string> names;
  std::vector<std::vector<bench::StepProfile>> tests;  // of each test, of each recipe
  for (const std::string& recipe : options.recipes) {
    const auto model = load(recipe);
    names.push_back(model->recipe());
    const std::vector<bench::StepProfile> steps = bench::profile_model(*model, device, options.what);
    tests.resize(steps.size());
    for (std::size_t i = 0; i < steps.size(); ++i) tests[i].push_back(steps[i]);
  }
  if (!options.json) fmt::print("{}\n\n", device.description());
  for (const auto& profiles : tests) {
    if (!options.json) {
      print_profiles(names, profiles);
      continue;
    }
    for (std::size_t i = 0; i < profiles.size(); ++i)
      for (const bench::KernelTime& kernel : profiles[i].kernels)
        fmt::print("{}", json_line({{"test", profiles[i].test},
                                    {"recipe", names[i]},
                                    {"kernel", kernel.name},
                                    {"calls", kernel.calls},
                                    {"seconds", kernel.seconds},
                                    {"share", kernel.share},
                                    {"step_seconds", profiles[i].seconds}}));
  }
}

void run_model(WholeModelOptions& options) {
  if (options.model.empty() == options.shapes.empty())
    fail(ErrorCode::usage, "bench model takes either MODEL or --shapes NAME");
  const std::unique_ptr<bench::Device> device = find_device(options.load.device);
  const std::vector<bench::Row> others =
      options.compare.empty() ? std::vector<bench::Row>{} : bench::read_rows(options.compare);
  models::LoadOptions load = load_options(options.load);
  const auto load_model = [&](const std::string& recipe) {
    if (!options.shapes.empty())
      return std::make_unique<models::Model>(models::shape(options.shapes), formats::recipe(recipe), load);
    load.recipe = formats::recipe(recipe);
    return std::make_unique<models::Model>(options.model, load);
  };
  for (const std::string& recipe : options.recipes) formats::recipe(recipe);  // all are checked before the first runs
  if (options.profile) return profile_models(options, *device, load_model);
  for (const std::string& recipe : options.recipes) {
    const Stopwatch watch;
    const auto model = load_model(recipe);
    const double load_seconds = watch.seconds();
    bool begun = false;
    bench::bench_model(*model, *device, options.what, [&](bench::Row row) {
      if (!options.compare.empty()) bench::compare({&row, 1}, others, options.compare);
      if (!options.json) {
        if (!begun) print_model_header(*model, *device, load_seconds);  // not before something was measured
        begun = true;
        return print_model_row(row, *device);
      }
      fmt::print("{}", json_line(to_json(row)));
      std::fflush(stdout);
    });
  }
}

void add_model(CLI::App& bench) {
  auto options = std::make_shared<WholeModelOptions>();
  CLI::App* command = bench.add_subcommand("model", "Time a whole model: prefill, decoding, batches, memory");
  command->add_option("model", options->model, "a model folder, in any dialect");
  command->add_option("--shapes", options->shapes, "random weights in the shapes of a model, instead of MODEL");
  command
      ->add_option("--recipe", options->recipes,
                   "of the random weights, or of a MODEL of floats, which is quantized while it loads; several, "
                   "separated by commas, one after the other")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  add_model_options(*command, options->load);
  command->add_option("--prefill", options->what.prefill, "tokens of a prompt; 0: no such test")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--decode", options->what.decode, "tokens that one sequence generates; 0: no such test")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--batches", options->what.batches, "numbers of sequences that generate together; 0: none")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  command->add_option("--runs", options->what.runs, "of each test; the median counts")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command->add_option("--compare", options->compare, "JSON lines of another run: adds its times and the ratio");
  command->add_flag("--profile", options->profile,
                    "on a GPU: what each kernel of a step takes, and its share of the limit, recipes side by side");
  command->add_flag("--json", options->json, "JSON lines on standard output");
  command->footer(
      "The limit of decoding is reading each streamed weight, its scales and the head once a step, of experts\n"
      "those that so many tokens choose evenly; of prefill, the peak of the multiply instruction. Both are probed "
      "between\nthe runs.\n\nExamples:\n"
      "  lowp bench model --shapes llama-3.2-1b --recipe int4_g32-int8 --head int8-bf16\n"
      "  lowp bench model bookworm-int4 --json\n"
      "  lowp bench model --device cuda --shapes llama-3.1-8b --recipe bf16,mxfp8-bf16,nvfp4-bf16 --profile");
  command->callback([options] { run_model(*options); });
}

struct TokenizerOptions {
  std::string model, text;
  int runs = 5;
  bool json = false;
};

// Seconds of each run of `body`, after one that does not count.
template <typename Body>
std::vector<double> time_runs(int runs, const Body& body) {
  std::vector<double> samples;
  body();
  for (int i = 0; i < runs; ++i) {
    const Stopwatch watch;
    body();
    samples.push_back(watch.seconds());
  }
  return samples;
}

void run_tokenizer(const TokenizerOptions& options) {
  const text::Tokenizer tokenizer = load_tokenizer(options.model);
  const std::string text = read_prose(options.text);
  std::vector<std::int32_t> ids;
  const std::vector<double> encoding = time_runs(options.runs, [&] { ids = tokenizer.encode(text); }),
                            decoding = time_runs(options.runs, [&] { tokenizer.decode(ids); });
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  if (options.json) {
    for (const auto& [op, samples] : {std::pair{"encode", encoding}, {"decode", decoding}})
      fmt::print("{}", json_line({{"op", op},
                                  {"model", options.model},
                                  {"bytes", text.size()},
                                  {"tokens", ids.size()},
                                  {"seconds", median(samples)},
                                  {"samples", samples}}));
    return;
  }
  fmt::print("{} bytes, {} tokens, one thread\n", text.size(), ids.size());
  Table table({"test", "MB/s", "tokens/s", "runs"});
  for (const auto& [op, samples] : {std::pair{"encode", encoding}, {"decode", decoding}})
    table.add({op, fmt::format("{:.1f}", megabytes / median(samples)),
               fmt::format("{:.0f}", static_cast<double>(ids.size()) / median(samples)),
               std::to_string(samples.size())});
  fmt::print("{}", table.text());
}

void add_tokenizer(CLI::App& bench) {
  auto options = std::make_shared<TokenizerOptions>();
  CLI::App* command = bench.add_subcommand("tokenizer", "Time a tokenizer on one core: text to ids and back");
  command->add_option("model", options->model, "a folder with a tokenizer.json, or a GGUF file")->required();
  command->add_option("--text", options->text, "a UTF-8 text file")->required();
  command->add_option("--runs", options->runs, "of each test; the median counts")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command->add_flag("--json", options->json, "JSON lines on standard output");
  command->footer("Example:\n  lowp bench tokenizer models/bookworm-8m --text book.txt");
  command->callback([options] { run_tokenizer(*options); });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure kernels against the machine's limit, models, servers");
  command->require_subcommand(1);
  add_kernels(*command);
  add_model(*command);
  add_serving_benches(*command);
  add_tokenizer(*command);
}

}  // namespace lowp::cli
