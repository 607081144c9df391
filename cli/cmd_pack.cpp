#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/models/packed_file.h"

namespace lowp::cli {
namespace {

struct PackOptions {
  std::string model;
  ModelOptions load{.device = "cpu"};
  bool remove = false, json = false;
};

void run(const PackOptions& options) {
  const Stopwatch watch;
  const std::string path = models::packed_path(checkpoint::Checkpoint(checkpoint::resolve_model(options.model)));
  std::uint64_t bytes = 0;
  if (options.remove) {
    if (!std::filesystem::remove(path)) fail(ErrorCode::io, "{}: there is no such file", path);
  } else {
    models::LoadOptions load = load_options(options.load);
    load.use_packed = false;
    bytes = models::Model(options.model, load).write_packed();
  }
  if (options.json)
    fmt::print("{}",
               json_line({{"model", options.model}, {"file", path}, {"bytes", bytes}, {"seconds", watch.seconds()}}));
  else if (options.remove)
    fmt::print("removed {}\n", path);
  else
    fmt::print("{}: {}, {:.1f} s\n", path, human_bytes(bytes), watch.seconds());
}

}  // namespace

void add_pack(CLI::App& app) {
  auto options = std::make_shared<PackOptions>();
  CLI::App* command =
      app.add_subcommand("pack", "Keep a model's weights as this CPU's kernels read them, for quick starts");
  command
      ->add_option("model", options->model,
                   "a folder, a safetensors or GGUF file, or org/name in the local Hugging Face cache")
      ->required();
  add_recipe_option(*command, options->load);
  add_weight_options(*command, options->load);
  add_threads_option(*command);
  command->add_flag("--remove", options->remove, "remove the file again");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Writes packed.lowp into MODEL (MODEL.packed.lowp beside a file). Commands that run the model on the CPU "
      "with the\n"
      "same --compute and --head map it in place of packing the weights, and give the same results. One file a model; "
      "it is\n"
      "not used once the model has changed, nor by CPUs with other instructions.\n\n"
      "Examples:\n  lowp pack models/bookworm-8m\n  lowp pack llama-int4 --head int8-int8\n  lowp pack llama-int4 "
      "--remove");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
