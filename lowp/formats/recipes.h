// The named recipes: a table of pairs.   <- ADD A RECIPE in recipes.cpp
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lowp/formats/recipe.h"

namespace lowp::formats {

/// A row of the table: weight and activation words, with placeholders as in block rows.
struct RecipeRow {
  std::string_view weight;      // pattern of the weight format
  std::string_view activation;  // "bf16" is weight-only
  std::string_view torchao;     // torchao's config, or "" where it has none
  std::string_view meaning;
};
std::span<const RecipeRow> recipe_rows();

/// Resolves "<weight>-<activation>", "bf16" or an alias (int4, int4-fp8, mxfp8 ...). Throws Error(usage) naming the
/// nearest.
Recipe recipe(const std::string& name);

/// The pairs of alias and recipe.
std::vector<std::pair<std::string, std::string>> recipe_aliases();

/// All rows, families with their usual parameters: names to print and to suggest.
std::vector<std::string> recipe_names();

/// About three dozen recipes that stand for all: what "every recipe" means in tests and in the demo.
std::vector<std::string> demo_recipe_names();

/// The recipes whose speed-ups torchao publishes: what `lowp roofline` shows unless asked otherwise.
std::vector<std::string> roofline_recipe_names();

}  // namespace lowp::formats
