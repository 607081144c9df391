// Recipe -> torchao: the subclass, its tensors, its description, its config. Spellings are those of torchao 0.18; what
// it accepts was found by saving and loading through its own flatten and unflatten.
#include <utility>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/torchao.h"

namespace lowp::checkpoint::torchao {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::Recipe;
using formats::Rule;
using formats::Scope;

constexpr std::string_view kSubclasses[] = {"Float8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor",
                                            "Int4Tensor",   "MXTensor",   "NVFP4Tensor"};

// "" or why the activation of a recipe cannot be said beside a weight of this subclass.
std::string activation_refusal(Subclass subclass, const Recipe& recipe) {
  const BlockFormat& weight = recipe.weight;
  if (!recipe.activation) {
    if (subclass == Subclass::mx)
      return "torchao cannot multiply by an MXTensor that is quantized on the weight side only";
    return "";
  }
  const BlockFormat& activation = recipe.activation->format;
  const Scope scope = recipe.activation->scope;
  const bool symmetric_int8 = activation.rule == Rule::symmetric && activation.element == Elem::int8;
  const bool asymmetric_int8 = activation.rule == Rule::asymmetric && activation.element == Elem::int8;
  switch (subclass) {
    case Subclass::float8:
      if (activation.rule != Rule::float8 || activation.element != Elem::e4m3) break;
      if (scope == Scope::calibrated)
        return "torchao's safetensors have no class for fp8 activations with a fixed scale";
      if (!per_row(activation) && !per_tensor(activation))
        return "torchao saves but cannot load a Float8Tensor whose activations are quantized in blocks";
      if (per_row(activation) != per_row(weight) || per_tensor(activation) != per_tensor(weight))
        return "torchao wants weights and activations in fp8 to have scales of the same granularity";
      return "";
    case Subclass::int8:
      if (!per_row(weight) && !per_tensor(weight))
        return "torchao multiplies int8 activations only by int8 weights with one scale for a channel or for all";
      if (symmetric_int8 && scope == Scope::calibrated && per_tensor(activation)) return "";
      if (symmetric_int8 && scope != Scope::calibrated && (per_row(activation) || per_tensor(activation))) return "";
      if (asymmetric_int8 && scope == Scope::token && per_row(activation)) return "";
      break;
    case Subclass::intx:
      if (asymmetric_int8 && scope == Scope::token && per_row(activation)) return "";
      break;
    case Subclass::int4:
      break;
    case Subclass::mx:
      if (activation.rule != Rule::mx) break;
      if (activation.element != weight.element || activation.group_cols != weight.group_cols)
        return "torchao wants weights and activations in MX to have the same element";
      return "";
    case Subclass::nvfp4:
      if (activation.rule != Rule::nvfp4) break;
      if (activation.tensor_scale != weight.tensor_scale)
        return "torchao wants a second-level scale on both sides of NVFP4 or on none";
      if (activation.tensor_scale && scope == Scope::token)
        return "torchao has no second-level scale for each token; nvfp4_tensor and nvfp4_static can be held";
      return "";
  }
  return fmt::format("torchao's {} has no activations in {}", name(subclass), recipe.activation->word);
}

}  // namespace

std::string_view name(Subclass subclass) { return kSubclasses[static_cast<std::size_t>(subclass)]; }

std::optional<Subclass> find_subclass(std::string_view text) {
  for (std::size_t i = 0; i < std::size(kSubclasses); ++i)
    if (kSubclasses[i] == text) return static_cast<Subclass>(i);
  return std::nullopt;
}

std::optional<Subclass> subclass_of(const BlockFormat& format) {
  switch (format.rule) {
    case Rule::float8:
      return format.element == Elem::e4m3 ? std::optional(Subclass::float8) : std::nullopt;
    case Rule::mx:
      return Subclass::mx;
    case Rule::nvfp4:
      return Subclass::nvfp4;
    case Rule::tinygemm:
      return Subclass::int4;
    case Rule::symmetric:
      if (format.scale_in_input_dtype) return Subclass::intx;
      return format.element == Elem::int8 ? std::optional(Subclass::int8) : std::nullopt;
    case Rule::asymmetric:
      return format.scale_in_input_dtype ? std::optional(Subclass::intx) : std::nullopt;
    default:
      return std::nullopt;
  }
}

std::string refusal(const Recipe& recipe) {
  const BlockFormat& weight = recipe.weight;
  if (recipe.keeps()) return "";
  const auto subclass = subclass_of(weight);
  if (!subclass && weight.rule == Rule::sym8)
    return fmt::format("torchao's Int4Tensor has scales in the dtype of the model, {} in f32", weight.name);
  if (!subclass) return fmt::format("torchao's safetensors have no class for {}", weight.name);
  if (subclass == Subclass::int4 && weight.group_cols % 2 != 0)
    return fmt::format("torchao's Int4Tensor has two codes a byte, so the group size {} should be even",
                       weight.group_cols);
  return activation_refusal(*subclass, recipe);
}

std::string tensor_name(const std::string& module, std::string_view field) {
  return fmt::format("{}._weight_{}", module, field);
}

std::vector<TensorEntry> layout(const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  LOWP_CHECK(!module.recipe.keeps(), "{} is not quantized", module.name);
  if (const std::string reason = refusal(module.recipe); !reason.empty())
    fail(ErrorCode::unsupported, "module {}: recipe {}: {}", module.name, module.recipe.name, reason);
  const Subclass subclass = *subclass_of(format);
  if (format.group_rows > 1 && module.m % format.group_rows != 0)
    fail(ErrorCode::unsupported, "module {}: torchao has whole blocks only, and {} rows are not a multiple of {}",
         module.name, module.m, format.group_rows);
  const Shape full = {module.m, module.k}, halved = {module.m, module.k / 2};
  const Shape groups = {format.scale_rows(module.m), format.scale_cols(module.k)};
  const bool calibrated = module.recipe.activation && module.recipe.activation->scope == Scope::calibrated;
  std::vector<TensorEntry> entries;
  const auto add = [&](std::string_view field, DType type, Shape shape) {
    entries.push_back({tensor_name(module.name, field), type, std::move(shape)});
  };
  switch (subclass) {
    case Subclass::float8:
      add("qdata", DType::f8_e4m3, full);
      add("scale", DType::f32, groups);
      break;
    case Subclass::int8:
      add("qdata", DType::i8, full);
      add("scale", DType::f32, groups);
      add("zero_point", DType::i8, groups);  // zeros, as torchao writes them
      // Of the rank of the activation, which torchao demands: [tokens, k].
      if (calibrated) add("act_quant_scale", DType::f32, {1, 1});
      break;
    case Subclass::intx:
      add("qdata", DType::i8, full);
      add("scale", dtype_of(module.input), groups);
      add("zero_point", DType::i8, groups);
      break;
    case Subclass::int4:  // parameters are transposed
      add("qdata", DType::i8, halved);
      add("scale", dtype_of(module.input), {groups[1], groups[0]});
      add("zero_point", dtype_of(module.input), {groups[1], groups[0]});
      break;
    case Subclass::mx:
      add("qdata", dtype_of(format.element), format.two_codes_a_byte() ? halved : full);
      add("scale", DType::f8_e8m0, groups);
      break;
    case Subclass::nvfp4:
      add("qdata", DType::u8, halved);
      add("scale", DType::f8_e4m3, groups);
      if (format.tensor_scale) add("per_tensor_scale", DType::f32, {});
      if (calibrated) add("act_per_tensor_scale", DType::f32, {});
      break;
  }
  return entries;
}

}  // namespace lowp::checkpoint::torchao
