// Recipes <-> schemes. Formats are compared by their parameters, never by name: a new row of the format table is
// spelled and recognized without an edit here, if the schema has words for it.
#include <algorithm>
#include <array>
#include <tuple>

#include "lowp/base/error.h"
#include "lowp/checkpoint/compressed_tensors_schema.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint::compressed_tensors {
namespace {

using formats::Activation;
using formats::BlockFormat;
using formats::Elem;
using formats::Recipe;
using formats::Scope;

constexpr std::pair<const char*, Storage> kFormats[] = {
    {"float-quantized", Storage::bytes},       {"int-quantized", Storage::bytes},
    {"naive-quantized", Storage::bytes},       {"mxfp8-quantized", Storage::bytes},
    {"pack-quantized", Storage::words},        {"nvfp4-pack-quantized", Storage::stream},
    {"mxfp4-pack-quantized", Storage::stream}, {"mxfp6-pack-quantized", Storage::stream},
};

// "" or why the schema has no words for a format, weight or activation.
std::string format_refusal(const BlockFormat& format) {
  const auto& element = formats::info(format.element);
  if (format.rule == formats::Rule::codebook) return "compressed-tensors has no codebooks";
  if (format.super_cols > 0 || format.rule == formats::Rule::absmax)
    return fmt::format("{} is a format of GGUF: its scales have no place here", format.name);
  if (format.zero_point == formats::ZeroPoint::floating) return "zero points of compressed-tensors are integers";
  const std::array known = {Elem::e4m3, Elem::e2m3, Elem::e2m1};
  if (element.is_float() && std::find(known.begin(), known.end(), format.element) == known.end())
    return fmt::format("{}-bit floats of compressed-tensors are not {}", element.bits, element.name);
  if (format.rule == formats::Rule::mx && (!element.is_float() || format.group_cols != 32))
    return "power-of-two scales of compressed-tensors are for 32 floats";
  return "";
}

Strategy strategy_of(const BlockFormat& format, bool is_weight) {
  if (format.rule == formats::Rule::nvfp4) return Strategy::tensor_group;
  if (format.group_rows > 1) return Strategy::block;
  if (format.group_rows == 0) return Strategy::tensor;
  if (format.group_cols > 0) return Strategy::group;
  return is_weight ? Strategy::channel : Strategy::token;
}

Args args_of(const BlockFormat& format, bool is_weight) {
  Args args;
  args.num_bits = formats::info(format.element).bits;
  args.is_float = formats::info(format.element).is_float();
  args.symmetric = format.zero_point == formats::ZeroPoint::none;
  args.strategy = strategy_of(format, is_weight);
  args.group_size = format.group_cols;
  args.block_rows = args.strategy == Strategy::block ? format.group_rows : 0;
  args.scale = format.scale == Elem::e8m0   ? ScaleType::e8m0
               : format.scale == Elem::e4m3 ? ScaleType::e4m3
                                            : ScaleType::floating;
  return args;
}

// A two-level activation needs its tensor scale in the file: fully dynamic tensor groups are accepted by the schema,
// but the package then computes one level only, and vLLM takes "local" for granted and reads an input_global_scale that
// nobody wrote. One-level nvfp4 is "local" with a global scale of 1.
std::string activation_refusal(const Activation& activation) {
  if (const std::string why = format_refusal(activation.format); !why.empty()) return why;
  if (activation.format.tensor_scale && activation.scope != Scope::calibrated)
    return fmt::format(
        "compressed-tensors wants the second-level activation scale in the file (input_global_scale), {} finds it at "
        "run time",
        activation.word);
  return "";
}

Args args_of(const Activation& activation) {
  Args args = args_of(activation.format, false);
  args.dynamic = args.strategy == Strategy::tensor_group ? Dynamic::local
                 : activation.scope == Scope::calibrated ? Dynamic::no
                                                         : Dynamic::yes;
  return args;
}

// As the package infers it, with two exceptions that it accepts and vLLM has kernels for: int weights with fp8
// activations, and int weights in groups with symmetric run-time int8 activations, are packed rather than kept a byte
// each.
std::string format_of(const Args& weights, const std::optional<Args>& input) {
  if (weights.scale == ScaleType::e4m3) return "nvfp4-pack-quantized";
  if (weights.scale == ScaleType::e8m0)
    return weights.num_bits == 8 ? "mxfp8-quantized" : fmt::format("mxfp{}-pack-quantized", weights.num_bits);
  if (weights.is_float) return input ? "float-quantized" : "naive-quantized";
  const bool packed_with_input =
      input &&
      (input->is_float || (weights.strategy == Strategy::group && input->symmetric && input->dynamic == Dynamic::yes));
  return !input || packed_with_input ? "pack-quantized" : "int-quantized";
}

std::string filled(std::string_view pattern, const Args& args) {
  std::string name(pattern);
  for (const auto& [what, value] : {std::pair{"<B>", args.num_bits}, {"<G>", args.group_size}})
    if (const auto at = name.find(what); at != std::string::npos) name.replace(at, 3, std::to_string(value));
  return name;
}

// The weight formats with these parameters, without repetition, in the order of the table.
std::vector<BlockFormat> weight_formats(const Args& args) {
  std::vector<BlockFormat> found;
  for (const formats::BlockRow& row : formats::block_rows()) {
    const auto format = formats::find_block_format(filled(row.pattern, args));
    if (row.use == formats::Use::activation || !format || format->name != filled(row.pattern, args)) continue;
    if (!format_refusal(*format).empty() || args_of(*format, true) != args) continue;
    const auto same = [&](const BlockFormat& other) { return other.name == format->name; };
    if (std::none_of(found.begin(), found.end(), same)) found.push_back(*format);
  }
  return found;
}

// The activations with these parameters, each word once, in the order of the table of recipes.
std::vector<Activation> activations(const Args& args) {
  std::vector<Activation> found;
  for (const formats::RecipeRow& row : formats::recipe_rows()) {
    const std::string word(row.activation);
    const auto same = [&](const Activation& other) { return other.word == word; };
    if (word == "bf16" || std::any_of(found.begin(), found.end(), same)) continue;
    const Recipe example = formats::recipe(formats::expand_pattern(row.weight).front() + "-" + word);
    if (activation_refusal(*example.activation).empty() && args_of(*example.activation) == args)
      found.push_back(*example.activation);
  }
  return found;
}

// Place of a pair in the table of recipes; its size if it is not there.
std::size_t row_of(const std::string& weight, const std::string& activation) {
  const auto rows = formats::recipe_rows();
  std::size_t i = 0;
  while (i < rows.size() && !(rows[i].activation == activation && formats::match_pattern(rows[i].weight, weight))) ++i;
  return i;
}

}  // namespace

std::optional<Storage> storage_of(const std::string& format) {
  for (const auto& [name, storage] : kFormats)
    if (format == name) return storage;
  return std::nullopt;
}

Spelling spell(const Recipe& recipe) {
  Spelling result;
  result.refusal = recipe.keeps() ? "the layer is not quantized" : format_refusal(recipe.weight);
  if (result.refusal.empty() && recipe.activation) result.refusal = activation_refusal(*recipe.activation);
  if (!result.refusal.empty()) return result;
  result.scheme.weights = args_of(recipe.weight, true);
  if (recipe.activation) result.scheme.input = args_of(*recipe.activation);
  result.scheme.format = format_of(result.scheme.weights, result.scheme.input);
  return result;
}

std::optional<Recipe> nearest_recipe(const Scheme& scheme, Elem scales) {
  const std::vector<std::optional<Activation>> inputs = [&] {
    std::vector<std::optional<Activation>> list;
    if (!scheme.input) list.emplace_back();
    if (scheme.input)
      for (Activation& activation : activations(*scheme.input)) list.emplace_back(std::move(activation));
    return list;
  }();
  const std::size_t unlisted = formats::recipe_rows().size();
  using Rank = std::tuple<bool, bool, std::size_t>;  // not a listed pair, scales of another kind, place in the table
  std::optional<std::pair<Rank, Recipe>> best;
  for (const BlockFormat& weight : weight_formats(scheme.weights))
    for (const auto& input : inputs) {
      const std::string word = input ? input->word : "bf16";
      const std::size_t row = row_of(weight.name, word);
      const bool other_scales = weight.scale == Elem::f32 && weight.scale_in_input_dtype == (scales == Elem::f32);
      const Rank rank{row == unlisted, other_scales, row};
      if (best && best->first <= rank) continue;
      // A pair that no row lists is still a pair of formats that lowp has.
      Recipe recipe{weight.name + "-" + word, weight, input};
      if (row != unlisted || !input) recipe = formats::recipe(recipe.name);
      best = {rank, std::move(recipe)};
    }
  return best ? std::optional(best->second) : std::nullopt;
}

}  // namespace lowp::checkpoint::compressed_tensors
