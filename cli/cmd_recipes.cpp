#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/output.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/recipes.h"

namespace lowp::cli {
namespace {

struct RecipesOptions {
  bool demo = false, formats = false, all = false, json = false, markdown = false;
};

std::string dialects_for(const formats::Recipe& recipe) {
  std::vector<std::string> names;
  for (const checkpoint::Dialect* dialect : checkpoint::dialects())
    if (dialect->refusal(recipe).empty()) names.push_back(dialect->name());
  return fmt::format("{}", fmt::join(names, ", "));
}

// Rows as they stand in the tables; a family's dialects are those of its most common member.
std::string example(std::string_view pattern) {
  std::string name(pattern);
  for (const auto& [what, with] : {std::pair{"<B>", "4"}, std::pair{"<G>", "128"}})
    if (const auto at = name.find(what); at != std::string::npos) name.replace(at, 3, with);
  return name;
}

struct Row {
  std::string name, meaning, torchao, dialects;
};

std::vector<Row> recipe_list(bool all) {
  std::vector<Row> rows = {{"bf16", "leaves the layer as it is", "", ""}};
  if (all) {
    for (const std::string& name : formats::recipe_names()) {
      const formats::Recipe recipe = formats::recipe(name);
      if (!recipe.keeps()) rows.push_back({name, "", "", dialects_for(recipe)});
    }
    return rows;
  }
  const auto add = [&](const std::string& pattern, std::string_view meaning, std::string_view torchao) {
    rows.push_back(
        {pattern, std::string(meaning), std::string(torchao), dialects_for(formats::recipe(example(pattern)))});
  };
  std::vector<std::string> weight_only;
  for (const formats::RecipeRow& row : formats::recipe_rows()) {
    add(fmt::format("{}-{}", row.weight, row.activation), row.meaning, row.torchao);
    if (row.activation == "bf16") weight_only.emplace_back(row.weight);
  }
  for (const formats::BlockRow& row : formats::block_rows())
    if (row.use != formats::Use::activation &&
        std::find(weight_only.begin(), weight_only.end(), row.pattern) == weight_only.end())
      add(fmt::format("{}-bf16", row.pattern), "weights only: " + std::string(row.meaning), "");
  return rows;
}

void print_recipes(const RecipesOptions& options) {
  const std::vector<Row> rows = recipe_list(options.all);
  if (options.json) {
    Json list = Json::array();
    for (const Row& row : rows)
      list.push_back(
          {{"recipe", row.name}, {"meaning", row.meaning}, {"torchao", row.torchao}, {"dialects", row.dialects}});
    Json aliases = Json::object();
    for (const auto& [alias, target] : formats::recipe_aliases()) aliases[alias] = target;
    fmt::print("{}\n", Json({{"recipes", list}, {"aliases", aliases}}).dump());
    return;
  }
  Table table({"recipe", "dialects", "meaning", "torchao"});
  for (const Row& row : rows) table.add({row.name, row.dialects, row.meaning, row.torchao});
  if (options.markdown) {
    fmt::print("{}", table.markdown());
    return;
  }
  fmt::print(
      "{}\nA recipe is <weight>-<activation>; bf16 as activation means weight-only. <B> is 1 to 8 bits, <G> a group "
      "size.\n",
      table.text());
  fmt::print("Aliases:");
  for (const auto& [alias, target] : formats::recipe_aliases()) fmt::print(" {} = {};", alias, target);
  fmt::print(
      "\n`--all` spells out the families, `--demo` lists the ones that tests and the demo run, `--formats` the "
      "formats.\n");
}

std::string group_words(const formats::BlockSpec& spec, std::string_view pattern) {
  const auto side = [](int size) { return size == 0 ? std::string("all") : std::to_string(size); };
  const bool family = pattern.find("<G>") != std::string_view::npos;
  return side(spec.group_rows) + " x " + (family ? "G" : side(spec.group_cols));
}

void print_formats(const RecipesOptions& options) {
  const auto scale_words = [](const formats::BlockSpec& spec) {
    return std::string(spec.scale_in_input_dtype ? "input dtype" : formats::name(spec.scale)) +
           (spec.tensor_scale ? " + f32 a tensor" : "");
  };
  const auto zero_words = [](formats::ZeroPoint zero) {
    return zero == formats::ZeroPoint::none ? "" : zero == formats::ZeroPoint::integer ? "integer" : "float";
  };
  if (options.json) {
    Json list = Json::array();
    for (const formats::BlockRow& row : formats::block_rows())
      list.push_back({{"format", row.pattern},
                      {"element", formats::name(row.spec.element)},
                      {"group", group_words(row.spec, row.pattern)},
                      {"scale", scale_words(row.spec)},
                      {"zero_point", zero_words(row.spec.zero_point)},
                      {"torchao", row.torchao},
                      {"meaning", row.meaning}});
    fmt::print("{}\n", list.dump());
    return;
  }
  Table elements({"element", "bits", "exponent", "mantissa", "bias", "largest", "smallest above 0", "special"});
  for (std::size_t i = 0; i < formats::kElements.size(); ++i) {
    const auto e = static_cast<formats::Elem>(i);
    const formats::ElementFormat& f = formats::info(e);
    const bool scale_only = f.is_float() && f.mantissa_bits == 0;
    elements.add({std::string(f.name), std::to_string(f.bits), f.is_float() ? std::to_string(f.exponent_bits) : "-",
                  f.is_float() ? std::to_string(f.mantissa_bits) : "-", f.is_float() ? std::to_string(f.bias) : "-",
                  fmt::format("{:g}", formats::max_value(e)),
                  fmt::format("{:g}", f.is_float() ? formats::decode(e, scale_only ? 0 : 1) : 1.0f),
                  f.specials == formats::Specials::none   ? "none"
                  : f.specials == formats::Specials::ieee ? "inf and NaN"
                                                          : "NaN"});
  }
  Table blocks({"format", "element", "group", "scale", "zero point", "torchao", "meaning"});
  for (const formats::BlockRow& row : formats::block_rows()) {
    std::string name(row.pattern);
    if (!row.alias.empty()) name += fmt::format(" ({})", row.alias);
    const bool family = row.pattern.find("<B>") != std::string_view::npos;
    blocks.add({name, family ? "intB" : std::string(formats::name(row.spec.element)),
                group_words(row.spec, row.pattern), scale_words(row.spec), zero_words(row.spec.zero_point),
                std::string(row.torchao), std::string(row.meaning)});
  }
  if (options.markdown) {
    fmt::print(
        "# Formats\n\nGenerated from the tables in `lowp/formats/element.h` and `lowp/formats/block.cpp` by `lowp "
        "recipes --formats --markdown`;\n"
        "the test `docs.formats` compares.\n\n## Element formats\n\n{}\n## Block formats\n\nA group is rows x columns "
        "that share a scale.\n\n{}",
        elements.markdown(), blocks.markdown());
    fmt::print("\n## Recipes\n\n");
    RecipesOptions recipes = options;
    recipes.formats = false;
    print_recipes(recipes);
    return;
  }
  fmt::print("{}\n{}", elements.text(), blocks.text());
}

void run(const RecipesOptions& options) {
  if (options.formats) return print_formats(options);
  if (!options.demo) return print_recipes(options);
  if (options.json)
    fmt::print("{}\n", Json(formats::demo_recipe_names()).dump());
  else
    fmt::print("{}\n", fmt::join(formats::demo_recipe_names(), "\n"));
}

}  // namespace

void add_recipes(CLI::App& app) {
  auto options = std::make_shared<RecipesOptions>();
  CLI::App* command = app.add_subcommand("recipes", "List recipes and formats");
  command->add_flag("--demo", options->demo, "only the names that stand for all: what the demo and the tests run");
  command->add_flag("--all", options->all, "every name, families spelled out");
  command->add_flag("--formats", options->formats, "the element and block formats instead");
  command->add_flag("--markdown", options->markdown, "as Markdown tables");
  command->add_flag("--json", options->json, "JSON on standard output");
  command->footer(
      "Examples:\n  lowp recipes\n  lowp recipes --formats\n  for r in $(lowp recipes --demo); do lowp quantize MODEL "
      "--recipe $r -o out/$r; done");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
