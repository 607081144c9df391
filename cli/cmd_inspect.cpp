#include <fmt/format.h>

#include <map>
#include <memory>
#include <set>

#include "cli/command.h"
#include "cli/output.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/report/layer_page.h"
#include "lowp/report/machine.h"

namespace lowp::cli {
namespace {

struct InspectOptions {
  std::string path, page;
  bool tensors = false, json = false;
};

// Modules of one recipe.
struct RecipeUse {
  formats::Recipe recipe;
  std::uint64_t modules = 0, weights = 0, bytes = 0;
};

struct Summary {
  std::string architecture, dialect;
  std::map<std::string, RecipeUse> recipes;
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>>
      plain;                                     // type -> tensors, bytes, of what is not quantized
  std::map<std::string, std::string> recipe_of;  // tensor -> recipe
  std::uint64_t bytes = 0;
};

Summary summarise(const checkpoint::Checkpoint& model) {
  Summary s;
  if (const auto& config = model.config()) {
    const auto at = config->find("architectures");
    if (at != config->end() && at->is_array() && !at->empty() && at->front().is_string())
      s.architecture = at->front().get<std::string>();
  }
  if (const checkpoint::Dialect* dialect = checkpoint::detect_dialect(model)) {
    s.dialect = dialect->name();
    for (const checkpoint::QuantizedModule& module : dialect->modules(model)) {
      RecipeUse& use = s.recipes[module.recipe.name];
      use.recipe = module.recipe;
      ++use.modules;
      use.weights += static_cast<std::uint64_t>(module.m) * static_cast<std::uint64_t>(module.k);
      for (const std::string& tensor : dialect->sources(model, module))
        if (s.recipe_of.emplace(tensor, module.recipe.name).second)
          use.bytes += model.find(tensor)->view().bytes.size();
    }
  }
  for (const checkpoint::StoredTensor& tensor : model.tensors()) {
    s.bytes += tensor.view().bytes.size();
    if (s.recipe_of.contains(tensor.entry.name)) continue;
    auto& [count, bytes] = s.plain[std::string(name(tensor.entry.dtype))];
    ++count;
    bytes += tensor.view().bytes.size();
  }
  return s;
}

// "int4 weights, a scale for 128 values; activations int8 per token".
std::string words(const formats::Recipe& recipe) {
  const formats::BlockFormat& w = recipe.weight;
  const auto patch = [](const formats::BlockFormat& f) {
    if (f.group_rows == 0 && f.group_cols == 0) return std::string("a scale for the tensor");
    if (f.group_cols == 0) return std::string("a scale for each row");
    return f.group_rows == 1 ? fmt::format("a scale for {} values", f.group_cols)
                             : fmt::format("a scale for {} x {} values", f.group_rows, f.group_cols);
  };
  std::string text = fmt::format("{} weights, {}", formats::name(w.element), patch(w));
  if (w.zero_point != formats::ZeroPoint::none)
    text += w.zero_point == formats::ZeroPoint::integer ? " with zero point" : " with float zero point";
  if (w.tensor_scale) text += " and one for the tensor";
  if (!recipe.activation) return text + "; activations as they are";
  const char* scope = recipe.activation->scope == formats::Scope::token    ? "per token"
                      : recipe.activation->scope == formats::Scope::tensor ? "over all tokens"
                                                                           : "calibrated";
  return text + fmt::format("; activations {} {}", recipe.activation->format.name, scope);
}

void print_json(const checkpoint::Checkpoint& model, const Summary& s) {
  Json tensors = Json::array(), recipes = Json::array();
  for (const checkpoint::StoredTensor& t : model.tensors()) {
    Json row = {{"name", t.entry.name},
                {"dtype", t.entry.type_name()},
                {"shape", t.entry.shape},
                {"bytes", t.view().bytes.size()},
                {"file", t.file->path()}};
    if (const auto at = s.recipe_of.find(t.entry.name); at != s.recipe_of.end()) row["recipe"] = at->second;
    tensors.push_back(row);
  }
  for (const auto& [name, use] : s.recipes)
    recipes.push_back({{"recipe", name},
                       {"modules", use.modules},
                       {"weights", use.weights},
                       {"bytes", use.bytes},
                       {"bits_per_weight", 8.0 * static_cast<double>(use.bytes) / static_cast<double>(use.weights)},
                       {"meaning", words(use.recipe)}});
  fmt::print("{}", json_line({{"path", model.path()},
                              {"architecture", s.architecture},
                              {"dialect", s.dialect.empty() ? Json(nullptr) : Json(s.dialect)},
                              {"bytes", s.bytes},
                              {"recipes", recipes},
                              {"tensors", tensors},
                              {"metadata", model.metadata()},
                              {"warnings", model.warnings()}}));
}

void print_text(const InspectOptions& options, const checkpoint::Checkpoint& model, const Summary& s) {
  fmt::print("{}\n{} tensors, {}{}\n", model.path(), model.tensors().size(), human_bytes(s.bytes),
             s.architecture.empty() ? "" : ", " + s.architecture);
  if (s.dialect.empty())
    fmt::print("not quantized\n");
  else
    fmt::print("quantized, written as {}\n", s.dialect);
  for (const auto& [name, use] : s.recipes)
    fmt::print("  {}: {} layers, {} weights, {} ({:.3f} bits a weight): {}\n", name, use.modules, use.weights,
               human_bytes(use.bytes), 8.0 * static_cast<double>(use.bytes) / static_cast<double>(use.weights),
               words(use.recipe));
  for (const auto& [type, use] : s.plain)
    fmt::print("  {}: {} tensors, {}\n", type, use.first, human_bytes(use.second));
  for (const std::string& text : model.warnings()) fmt::print("warning: {}\n", text);
  if (!options.tensors && model.tensors().size() > 40) {
    fmt::print("`--tensors` lists them all\n");
    return;
  }
  Table table({"tensor", "type", "shape", "bytes", "recipe"});
  for (const checkpoint::StoredTensor& t : model.tensors()) {
    const auto at = s.recipe_of.find(t.entry.name);
    table.add({t.entry.name, std::string(t.entry.type_name()), to_string(t.entry.shape),
               std::to_string(t.view().bytes.size()), at == s.recipe_of.end() ? "" : at->second});
  }
  fmt::print("\n{}", table.text());
}

void run(const InspectOptions& options) {
  const checkpoint::Checkpoint model(checkpoint::resolve_model(options.path));
  const Summary summary = summarise(model);
  if (!options.page.empty()) {
    OutputFile file(options.page);
    Progress progress("reading");
    file.writer().append(
        report::inspect_page(model, report::about(report::this_machine(LOWP_VERSION)),
                             [&](double share) { progress.update(static_cast<std::uint64_t>(share * 1e6), 1000000); }));
    file.commit();
  }
  if (options.json)
    print_json(model, summary);
  else
    print_text(options, model, summary);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show what a checkpoint holds: tensors, formats, bytes, quantization");
  command
      ->add_option("path", options->path,
                   "a folder, a safetensors or GGUF file, or org/name in the local Hugging Face cache")
      ->required();
  command->add_flag("--tensors", options->tensors, "list every tensor, however many");
  command->add_option("--html", options->page,
                      "a page to write: which format stands where, bits a weight, histograms of weights");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer("Examples:\n  lowp inspect models/bookworm-8m\n  lowp inspect out/model.safetensors --json");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
