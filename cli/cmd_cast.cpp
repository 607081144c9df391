#include <fmt/format.h>

#include <map>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/quant/cast_file.h"

namespace lowp::cli {
namespace {

struct CastOptions {
  quant::CastFileRequest request;
  std::string scaling = "floor", axis = "k", layout = "rows", device = "auto", dtype = "bf16", rounding = "nearest";
  std::optional<std::uint64_t> seed;
  bool decode = false, json = false;
};

void print(const CastOptions& options, const quant::CastFileReport& report, double seconds) {
  if (options.json) {
    Json tensors = Json::array();
    for (const auto& t : report.tensors) {
      tensors.push_back({{"name", t.name},
                         {"shape", t.shape},
                         {"bytes", t.bytes},
                         {"sqnr", t.sqnr ? json_number(*t.sqnr) : Json(nullptr)}});
    }
    const Json all = {{"format", report.format},
                      {"scaling", options.scaling},
                      {"axis", options.axis},
                      {"scale_layout", options.layout},
                      {"rounding", options.rounding},
                      {"hadamard", options.request.hadamard},
                      {"device", options.request.device.name()},
                      {"tensors", tensors},
                      {"skipped", report.skipped},
                      {"seconds", seconds}};
    fmt::print("{}", json_line(all));
    return;
  }
  Table table({"tensor", "shape", "format", "bytes", "SQNR dB"});
  for (const auto& t : report.tensors)
    table.add({t.name, to_string(t.shape), report.format, std::to_string(t.bytes), t.sqnr ? decibel(*t.sqnr) : "-"});
  fmt::print("{}on {}\n", table.text(), options.request.device.name());
  for (const std::string& name : report.skipped) fmt::print("not cast: {}\n", name);
}

void run(CastOptions& options) {
  const Stopwatch watch;
  options.request.device = ops::choose_device(options.device);
  const auto format = formats::find_block_format(options.request.format);
  if (options.device == "auto" && format && format->super_cols > 0) options.request.device = {};  // the CPU's alone
  if (!options.decode && options.request.format.empty()) fail(ErrorCode::usage, "--format is required");
  if (options.seed && options.rounding != "stochastic")
    fail(ErrorCode::usage, "--seed goes with --rounding stochastic");
  if (options.rounding == "stochastic") options.request.seed = options.seed.value_or(0);
  options.request.scaling = *formats::find_scaling(options.scaling);
  options.request.layout = *formats::find_scale_layout(options.layout);
  options.request.axis = options.axis == "k"   ? quant::Axis::k
                         : options.axis == "n" ? quant::Axis::n
                                               : quant::Axis::both;
  const quant::CastFileReport report =
      options.decode ? quant::decode_file(options.request, options.dtype == "f32" ? DType::f32 : DType::bf16)
                     : quant::cast_file(options.request);
  print(options, report, watch.seconds());
}

}  // namespace

void add_cast(CLI::App& app) {
  auto options = std::make_shared<CastOptions>();
  CLI::App* command = app.add_subcommand("cast", "Cast the tensors of a safetensors file into a format, or back");
  add_threads_option(*command);
  command->add_option("input", options->request.input, "a safetensors file")->required();
  command->add_option("--format", options->request.format, "format name, see `lowp recipes --formats`");
  command->add_option("-o,--output", options->request.output, "the file to write")->required();
  command->add_option("--scaling", options->scaling, "how MX scales are rounded")
      ->check(CLI::IsMember(formats::scaling_names()))
      ->capture_default_str();
  command->add_option("--rounding", options->rounding, "to the nearest code, or by chance to either neighbour (floats)")
      ->check(CLI::IsMember({"nearest", "stochastic"}))
      ->capture_default_str();
  command->add_option("--seed", options->seed,
                      "of stochastic rounding: the same seed gives the same codes (default 0)");
  command->add_flag("--hadamard", options->request.hadamard,
                    "transform runs of 16 along the blocks first, as NVFP4 training does; decoding does not undo it");
  command
      ->add_option("--axis", options->axis,
                   "blocks along the last dimension (k), the second to last (n, stored transposed) or both")
      ->check(CLI::IsMember({"k", "n", "both"}))
      ->capture_default_str();
  command->add_option("--scale-layout", options->layout, "layout of one-byte scales")
      ->check(CLI::IsMember(formats::scale_layout_names()))
      ->capture_default_str();
  command->add_option(
      "--group-ends", options->request.group_ends,
      "tensor of the input with the exclusive group ends: rows (m groups) or elements along the block axis (k groups)");
  command->add_flag("--decode", options->decode, "turn a cast file back into floats");
  command->add_option("--dtype", options->dtype, "type of decoded tensors")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command
      ->add_option("--device", options->device, "where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N")
      ->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Writes T.data, T.scale and, where the format has them, T.tensor_scale, T.zero_point, T.codebook for every "
      "floating\n"
      "2-D or 3-D tensor T.\n\nExamples:\n"
      "  lowp cast w.safetensors --format mxfp8 --scaling rceil -o w-mxfp8.safetensors\n"
      "  lowp cast experts.safetensors --format mxfp8 --axis n --scale-layout tiled_per_expert -o cast.safetensors\n"
      "  lowp cast grad.safetensors --format nvfp4_training --rounding stochastic --seed 7 --hadamard --axis n -o "
      "g.safetensors\n"
      "  lowp cast w-mxfp8.safetensors --decode --dtype f32 -o back.safetensors");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
