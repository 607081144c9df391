#include "lowp/formats/recipes.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"

namespace lowp::formats {
namespace {

// clang-format off
constexpr RecipeRow kRecipes[] = {
    {"fp8", "fp8", "Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())", "fp8 weights and activations, a scale per channel and token"},
    {"fp8_tensor", "fp8_tensor", "Float8DynamicActivationFloat8WeightConfig(granularity=PerTensor())", "one scale for the weight and one for all tokens of a call; not batch-invariant"},
    {"fp8_block128", "fp8_group128", "Float8DynamicActivationFloat8WeightConfig(granularity=[PerBlock([1, 128]), PerBlock([128, 128])])", "DeepSeek's blocks: 128 x 128 weights, 128 activations"},
    {"fp8_tensor", "fp8", "", "one scale for the weight, one per token for the activations"},
    {"fp8_tensor", "fp8_static", "Float8StaticActivationFloat8WeightConfig", "activation scale from calibration"},
    {"fp8", "bf16", "Float8WeightOnlyConfig", "fp8 weights only"},
    {"int8", "int8", "Int8DynamicActivationInt8WeightConfig", "int8 weights and activations, a scale per channel and token"},
    {"int8", "int8_static", "Int8StaticActivationInt8WeightConfig", "activation scale from calibration"},
    {"int8", "int8_asym", "Int8DynamicActivationInt8WeightConfig(act_mapping_type=ASYMMETRIC)", "activations with a zero point per token"},
    {"int8", "bf16", "Int8WeightOnlyConfig", "int8 weights only"},
    {"int8_g32", "int8_g32", "", "int8 with a scale for 32 values on both sides"},
    {"int4_g32", "int8", "", "int4 weights, int8 activations with a scale per token"},
    {"int4_g32", "int8_g32", "", "int4 weights, int8 activations with a scale for 32 values"},
    {"int4_g128_sym8", "fp8", "Float8DynamicActivationInt4WeightConfig", "int4 weights, fp8 activations"},
    {"int4_g<G>_float", "bf16", "Int4WeightOnlyConfig", "tinygemm's int4 with a float zero point"},
    {"int4_g<G>_float_hqq", "bf16", "Int4WeightOnlyConfig(int4_choose_qparams_algorithm=HQQ)", "the same, refined by HQQ"},
    {"int<B>_g<G>", "bf16", "IntxWeightOnlyConfig(granularity=PerGroup(G))", "B-bit weights only"},
    {"int<B>_g<G>_asym", "bf16", "IntxWeightOnlyConfig(granularity=PerGroup(G), mapping_type=ASYMMETRIC)", "B-bit weights with zero points"},
    {"int<B>_channel", "bf16", "IntxWeightOnlyConfig(granularity=PerAxis(0))", "B-bit weights, a scale per channel"},
    {"int<B>_channel_asym", "bf16", "IntxWeightOnlyConfig(granularity=PerAxis(0), mapping_type=ASYMMETRIC)", "B-bit weights, a scale and a zero point per channel"},
    {"int<B>_g<G>", "fp8_static", "", "B-bit weights, fp8 activations whose scale is calibrated"},
    {"int<B>_g<G>", "int8_asym", "Int8DynamicActivationIntxWeightConfig(weight_granularity=PerGroup(G))", "B-bit weights, int8 activations with a zero point per token"},
    {"int<B>_g<G>_asym", "int8_asym", "Int8DynamicActivationIntxWeightConfig(weight_granularity=PerGroup(G), weight_mapping_type=ASYMMETRIC)", "the same with weight zero points"},
    {"mxfp8", "mxfp8", "MXDynamicActivationMXWeightConfig", "MX fp8 on both sides"},
    {"mxfp8", "bf16", "", "MX fp8 weights only"},
    {"mxfp6", "mxfp6", "MXDynamicActivationMXWeightConfig(activation_dtype=fp6_e2m3, weight_dtype=fp6_e2m3)", "MX fp6 (e2m3) on both sides"},
    {"mxfp6", "bf16", "", "MX fp6 (e2m3) weights only"},
    {"mxfp6_e3m2", "mxfp6_e3m2", "MXDynamicActivationMXWeightConfig(activation_dtype=fp6_e3m2, weight_dtype=fp6_e3m2)", "MX fp6 (e3m2) on both sides"},
    {"mxfp6_e3m2", "bf16", "", "MX fp6 (e3m2) weights only"},
    {"mxfp4", "mxfp4", "MXDynamicActivationMXWeightConfig(activation_dtype=float4_e2m1fn_x2, weight_dtype=float4_e2m1fn_x2)", "MX fp4 on both sides"},
    {"mxfp4", "bf16", "", "MX fp4 weights only"},
    {"mxfp4", "mxfp8", "", "MX fp4 weights, MX fp8 activations"},
    {"mxfp4", "fp8", "", "MX fp4 weights, fp8 activations with a scale per token"},
    {"mxfp4", "fp8_static", "", "MX fp4 weights, fp8 activations whose scale is calibrated"},
    {"mxfp4", "int8", "", "MX fp4 weights, int8 activations with a scale per token"},
    {"mxfp4", "int8_g32", "", "MX fp4 weights, int8 activations with a scale for 32 values"},
    {"nvfp4", "nvfp4", "", "nvfp4 on both sides, the second-level activation scale per token"},
    {"nvfp4", "nvfp4_tensor", "NVFP4DynamicActivationNVFP4WeightConfig", "the second-level activation scale over all tokens of a call; not batch-invariant"},
    {"nvfp4", "nvfp4_static", "NVFP4DynamicActivationNVFP4WeightConfig(step=convert)", "the second-level activation scale from calibration"},
    {"nvfp4_single", "nvfp4_single", "NVFP4DynamicActivationNVFP4WeightConfig(use_dynamic_per_tensor_scale=False)", "nvfp4 without second level"},
    {"nvfp4", "bf16", "NVFP4WeightOnlyConfig", "nvfp4 weights only"},
    {"nvfp4", "fp8_static", "", "nvfp4 weights, fp8 activations whose scale is calibrated"},
    {"nvfp4", "int8", "", "nvfp4 weights, int8 activations with a scale per token"},
    {"nvfp4", "int8_g32", "", "nvfp4 weights, int8 activations with a scale for 32 values"},
    {"codebook4_g<G>", "bf16", "CodebookWeightOnlyConfig(dtype=uint4, scale_block_size=G)", "4-bit table lookup, weights only"},
    {"q8_0", "bf16", "", "GGUF Q8_0, weights only"},
    {"q2_k", "bf16", "", "GGUF Q2_K, weights only"},
    {"q3_k", "bf16", "", "GGUF Q3_K, weights only"},
    {"q4_k", "bf16", "", "GGUF Q4_K, weights only"},
    {"q5_k", "bf16", "", "GGUF Q5_K, weights only"},
    {"q6_k", "bf16", "", "GGUF Q6_K, weights only"},
};

constexpr std::pair<const char*, const char*> kAliases[] = {
    {"fp8", "fp8-fp8"},       {"int8", "int8-int8"},    {"int4", "int4_g128-bf16"}, {"int4-fp8", "int4_g128_sym8-fp8"},
    {"mxfp8", "mxfp8-mxfp8"}, {"mxfp6", "mxfp6-mxfp6"}, {"mxfp4", "mxfp4-mxfp4"},   {"nvfp4", "nvfp4-nvfp4"},
};

constexpr const char* kDemo[] = {
    "bf16", "fp8-fp8", "fp8_tensor-fp8_tensor", "fp8_block128-fp8_group128", "fp8-bf16",
    "int8-int8", "int8-int8_asym", "int8-bf16", "int8_g32-int8_g32", "int8_channel-bf16",
    "int7_channel_asym-bf16", "int6_g128-bf16", "int5_g64-bf16", "int3_g32-bf16", "int2_g32_asym-bf16", "int1_g32-bf16",
    "int4_g32-bf16", "int4_g64-bf16", "int4_g128-bf16", "int4_g256-bf16", "int4_g128_asym-bf16", "int4_g128_float-bf16",
    "int4_g64_float_hqq-bf16", "int4_g32-int8", "int4_g32-int8_g32", "int4_g32-int8_asym", "int4_g128_sym8-fp8",
    "mxfp8-mxfp8", "mxfp6-mxfp6", "mxfp6_e3m2-mxfp6_e3m2", "mxfp4-mxfp4", "mxfp4-mxfp8", "mxfp4-bf16",
    "nvfp4-nvfp4", "nvfp4-nvfp4_tensor", "nvfp4_single-nvfp4_single", "nvfp4-bf16", "codebook4_g64-bf16",
};
constexpr const char* kRoofline[] = {
    "fp8_tensor-fp8_tensor", "fp8-fp8", "mxfp8-mxfp8", "nvfp4-nvfp4_tensor", "nvfp4-nvfp4_static",
};
// clang-format on

// Activation words whose scope is not the token; the format is what remains of the word, or the word itself.
std::optional<Activation> find_activation(std::string_view word) {
  const auto with = [&](std::string_view format, Scope scope) -> std::optional<Activation> {
    auto found = find_block_format(format);
    if (!found || !found->has_scale() || found->use == Use::weight) return std::nullopt;
    return Activation{*found, scope, std::string(word)};
  };
  if (word == "nvfp4_tensor") return with("nvfp4", Scope::tensor);
  if (word.ends_with("_tensor")) return with(word, Scope::tensor);
  if (word.ends_with("_static")) return with(word, Scope::calibrated);
  return with(word, Scope::token);
}

}  // namespace

std::span<const RecipeRow> recipe_rows() { return kRecipes; }

std::vector<std::pair<std::string, std::string>> recipe_aliases() { return {std::begin(kAliases), std::end(kAliases)}; }

Recipe recipe(const std::string& asked) {
  std::string name = asked;
  for (const auto& [alias, target] : kAliases)
    if (name == alias) name = target;
  Recipe result{name, {}, std::nullopt};
  if (name == "bf16") {
    result.weight = block_format("bf16");
    return result;
  }
  const auto dash = name.find('-');
  const std::string weight_word = name.substr(0, dash);
  std::string activation_word = dash == std::string::npos ? "" : name.substr(dash + 1);
  if (const auto other = find_block_format(activation_word)) activation_word = other->name;  // of two spellings
  const auto weight = find_block_format(weight_word);
  const bool weight_fits = weight && weight->has_scale() && weight->use != Use::activation;
  if (weight_fits && activation_word == "bf16") {
    result.weight = *weight;
    result.name = weight->name + "-bf16";
    return result;
  }
  if (weight_fits)
    for (const RecipeRow& row : kRecipes)
      if (row.activation == activation_word && match_pattern(row.weight, weight->name)) {
        result.weight = *weight;
        result.activation = find_activation(activation_word);
        LOWP_CHECK(result.activation, "recipe table names the unknown activation {}", row.activation);
        // torchao's intx recipes compute the activation's scale in the activation's dtype, its Int8Tensor in f32.
        if (activation_word == "int8_asym" && weight->scale_in_input_dtype)
          result.activation->format.scale_in_input_dtype = true;
        result.name = weight->name + "-" + activation_word;
        return result;
      }
  std::vector<std::string> known = recipe_names();
  for (const auto& [alias, target] : kAliases) known.emplace_back(alias);
  fail(ErrorCode::usage, "unknown recipe '{}'{}; `lowp recipes` lists them", asked, did_you_mean(asked, known));
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names = {"bf16"};
  const auto add = [&](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const RecipeRow& row : kRecipes)
    for (const std::string& weight : expand_pattern(row.weight)) add(weight + "-" + std::string(row.activation));
  for (const BlockRow& row : block_rows())  // every weight format can stand alone, with or without a row above
    if (row.use != Use::activation)
      for (const std::string& weight : expand_pattern(row.pattern)) add(weight + "-bf16");
  return names;
}

std::vector<std::string> demo_recipe_names() { return {std::begin(kDemo), std::end(kDemo)}; }
std::vector<std::string> roofline_recipe_names() { return {std::begin(kRoofline), std::end(kRoofline)}; }

}  // namespace lowp::formats
