#include <fmt/format.h>

#include <memory>

#include "bench/cpu_device.h"
#include "bench/cuda_device.h"
#include "bench/cuda_gemm_cases.h"
#include "bench/roofline.h"
#include "cli/command.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/gemm_cublas.h"
#include "lowp/ops/device.h"

namespace lowp::cli {
namespace {

struct RooflineOptions {
  std::vector<std::string> recipes;
  std::string device = "auto", shapes = "pow2", peaks = "measured", html;
  bool no_fusion = false, json = false;
};

std::string microseconds(double seconds) { return fmt::format("{:.2f}", seconds * 1e6); }

void print_table(const bench::Peaks& peaks, const std::vector<bench::RooflineRow>& rows) {
  fmt::print("{}: bf16 {:.4g}, fp8 {:.4g}, fp4 {:.4g}, int8 {:.4g} operations/s, memory {:.4g} bytes/s\n\n", peaks.name,
             peaks.bf16, peaks.fp8, peaks.fp4, peaks.int8, peaks.bytes);
  const bool observed = !rows.empty() && rows[0].observed;
  std::vector<std::string> header = {"recipe",     "M",       "K",       "N", "bf16 product us", "bf16 activation us",
                                     "product us", "cast us", "speed-up"};
  if (observed) header.insert(header.end(), {"observed bf16 us", "observed product us", "observed speed-up"});
  Table table(header);
  for (const bench::RooflineRow& row : rows) {
    const bench::Expected& e = row.expected;
    std::vector<std::string> cells = {row.recipe,
                                      std::to_string(row.shape.m),
                                      std::to_string(row.shape.k),
                                      std::to_string(row.shape.n),
                                      microseconds(e.bf16_gemm),
                                      microseconds(e.bf16_activation),
                                      microseconds(e.gemm),
                                      microseconds(e.cast),
                                      fmt::format("{:.2f}", e.speedup())};
    if (observed) {
      cells.push_back(microseconds(row.observed->bf16_gemm));
      cells.push_back(microseconds(row.observed->gemm));
      cells.push_back(fmt::format("{:.2f}", row.observed->bf16_whole / row.observed->whole));
    }
    table.add(cells);
  }
  fmt::print("{}", table.text());
}

void run(const RooflineOptions& options) {
  std::vector<formats::Recipe> recipes;
  for (const std::string& name : options.recipes) recipes.push_back(formats::recipe(name));
  const std::vector<bench::LayerShape> shapes = bench::layer_shapes(options.shapes);
  std::unique_ptr<bench::Device> device;
  bench::Peaks peaks;
  bool observe = false;
  if (options.peaks == "measured") {
    const ops::Device chosen = ops::choose_device(options.device);
    device = chosen.is_cuda() ? bench::cuda_device(chosen.cuda) : bench::cpu_device();
    peaks = bench::measured_peaks(*device);
    observe = chosen.is_cuda() && kernels::cuda::why_no_cublas().empty();
  } else {
    peaks = bench::peaks(options.peaks);
  }
  std::vector<bench::RooflineRow> rows;
  Progress progress("measuring");
  for (const formats::Recipe& recipe : recipes)
    for (const bench::LayerShape& shape : shapes) {
      bench::RooflineRow row{recipe.name, shape, bench::expected(peaks, recipe, shape, !options.no_fusion), {}};
      if (observe) row.observed = bench::observe_layer(recipe, shape);
      rows.push_back(std::move(row));
      progress.update(rows.size(), recipes.size() * shapes.size());
    }
  if (options.json)
    for (const bench::RooflineRow& row : rows) fmt::print("{}", json_line(to_json(row)));
  else
    print_table(peaks, rows);
  if (options.html.empty()) return;
  OutputFile page(options.html);
  page.writer().append(bench::roofline_page(peaks, rows));
  page.commit();
}

}  // namespace

void add_roofline(CLI::App& app) {
  auto options = std::make_shared<RooflineOptions>();
  CLI::App* command = app.add_subcommand("roofline", "What a layer can gain by a recipe, and what it gains");
  options->recipes = formats::roofline_recipe_names();
  command->add_option("--recipe", options->recipes, "recipes, separated by commas")->delimiter(',');
  command->add_option("--device", options->device, "auto, cpu, cuda or cuda:N, with measured peaks")
      ->capture_default_str();
  command->add_option("--shapes", options->shapes, "pow2, llama, sweep or a model known by name")
      ->capture_default_str();
  command
      ->add_option("--peaks", options->peaks,
                   fmt::format("measured, {}, or a JSON file with bf16, fp8, fp4, int8 (operations/s), bytes "
                               "(bytes/s), gemm_share, memory_share",
                               fmt::join(bench::known_peaks(), ", ")))
      ->capture_default_str();
  command->add_flag("--no-fusion", options->no_fusion,
                    "leave the activation function out, which a cast takes in and bf16 needs a kernel for");
  command->add_option("--html", options->html, "also write a page with a plot");
  command->add_flag("--json", options->json, "JSON lines on standard output, in torchao's columns");
  command->footer(
      "Expected times of ReLU -> Linear by torchao's float8_inference_roofline: a product takes its operations at the "
      "peak or\nits bytes, a launch 2 us at least. On a CUDA device with measured peaks the kernels are timed too.\n\n"
      "Examples:\n"
      "  lowp roofline --peaks b200\n"
      "  lowp roofline --recipe mxfp4-bf16,nvfp4-nvfp4 --shapes llama-3.1-8b --peaks h100 --html roofline.html");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
