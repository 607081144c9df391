#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/output.h"
#include "lowp/quant/convert_checkpoint.h"

namespace lowp::cli {
namespace {

struct ConvertOptions {
  quant::ConvertRequest request;
  bool json = false;
};

void run(ConvertOptions& options) {
  const Stopwatch watch;
  Progress progress("converting");
  options.request.progress = [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); };
  const quant::ConvertReport report = quant::convert_checkpoint(options.request);
  if (options.json) {
    fmt::print("{}", json_line({{"model", options.request.model},
                                {"output", options.request.output},
                                {"from", report.from},
                                {"to", report.to},
                                {"modules", report.modules},
                                {"kept", report.kept},
                                {"file_bytes", report.file_bytes},
                                {"warnings", report.warnings},
                                {"seconds", watch.seconds()}}));
    return;
  }
  for (const std::string& text : report.warnings) fmt::print("warning: {}\n", text);
  fmt::print("{} layers from {} to {}, {} on disk, {:.1f} s -> {}\n", report.modules, report.from, report.to,
             human_bytes(report.file_bytes), watch.seconds(), options.request.output);
}

}  // namespace

void add_convert(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app.add_subcommand(
      "convert", "Write a quantized checkpoint in another dialect: the same codes and scales, bit for bit");
  command
      ->add_option("model", options->request.model,
                   "a folder, a safetensors file, or org/name in the local Hugging Face cache")
      ->required();
  command->add_option("-o,--output", options->request.output, "the folder to write")->required();
  command->add_option("--dialect", options->request.dialect, "what to write: " + checkpoint::dialect_list())
      ->required();
  command->add_flag("--overwrite", options->request.overwrite, "replace an existing model folder");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Examples:\n"
      "  lowp convert org/name-GPTQ -o out --dialect compressed-tensors\n"
      "  lowp convert bookworm-nvfp4 -o bookworm-modelopt --dialect modelopt\n\n"
      "What a dialect cannot hold is an error that names the layers and the reason; docs/CHECKPOINTS.md has the "
      "table.");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
