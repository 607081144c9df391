// Recipe -> torchao's JSON: the description of a weight and the config of a model, spelled as torchao 0.18 spells them.
#include <utility>

#include "lowp/base/error.h"
#include "lowp/checkpoint/torchao.h"

namespace lowp::checkpoint::torchao {
namespace {

using formats::BlockFormat;
using formats::BlockSpec;
using formats::Elem;
using formats::Recipe;
using formats::Rule;
using formats::Scope;
using formats::ZeroPoint;

// Objects of torchao's JSON. In configs, classes carry a version; in descriptions they do not.
Json object(const char* type, Json data) {
  Json json = {{"_type", type}};
  json["_data"] = std::move(data);
  return json;
}

Json versioned(const char* type, int version, Json data) {
  Json json = {{"_type", type}, {"_version", version}};
  json["_data"] = std::move(data);
  return json;
}

Json dtype(Elem element) {
  switch (element) {
    case Elem::f32:
      return object("torch.dtype", "float32");
    case Elem::f16:
      return object("torch.dtype", "float16");
    case Elem::bf16:
      return object("torch.dtype", "bfloat16");
    case Elem::e4m3:
      return object("torch.dtype", "float8_e4m3fn");
    case Elem::e5m2:
      return object("torch.dtype", "float8_e5m2");
    case Elem::e2m1:
      return object("torch.dtype", "float4_e2m1fn_x2");
    case Elem::e2m3:
      return "fp6_e2m3";  // torch has no 6-bit dtype; torchao uses strings
    case Elem::e3m2:
      return "fp6_e3m2";
    default:
      return object("torch.dtype", std::string(formats::name(element)));  // "int4"
  }
}

// How torchao names the shape of a group, with or without the version that configs have.
Json granularity(const BlockSpec& format, bool in_config) {
  const auto make = [&](const char* type, Json data) {
    return in_config ? versioned(type, 1, std::move(data)) : object(type, std::move(data));
  };
  if (per_tensor(format)) return make("PerTensor", Json::object());
  if (per_row(format)) return make("PerRow", {{"dim", -1}});
  return make("PerGroup", {{"group_size", format.group_cols}});
}

Json intx_granularity(const BlockSpec& format) {
  return format.group_cols == 0 ? versioned("PerAxis", 1, {{"axis", 0}}) : granularity(format, true);
}

Json mapping(bool asymmetric) { return object("MappingType", asymmetric ? "ASYMMETRIC" : "SYMMETRIC"); }

// AUTO multiplies on the device's block-scaled units, which exist for e4m3 and e2m1 only; the others are dequantized
// first.
Json mx_kernel(const BlockSpec& format) {
  return object("KernelPreference", format.element == Elem::e4m3 || format.element == Elem::e2m1 ? "AUTO" : "EMULATED");
}

// lowp's own default for activations, and that of torchao's config.
Json mx_scaling() { return object("ScaleCalculationMode", "RCEIL"); }

Json auto_kernel() { return object("KernelPreference", "AUTO"); }

// torchao asserts that a quantized activation comes with one of these.
Json float8_matmul() { return {{"emulate", false}, {"use_fast_accum", true}, {"pad_inner_dim", false}}; }

// The second-level activation scale is taken at run time, from all tokens of a call.
bool is_dynamic_tensor_scale(const Recipe& recipe) {
  return recipe.activation->format.tensor_scale && recipe.activation->scope == Scope::tensor;
}

// Attributes of the object that quantizes activations; null for weight-only recipes.
Json activation_kwargs(Subclass subclass, const Recipe& recipe) {
  if (!recipe.activation) return nullptr;
  const BlockFormat& format = recipe.activation->format;
  switch (subclass) {
    case Subclass::float8:
      return object("QuantizeTensorToFloat8Kwargs", {{"float8_dtype", dtype(format.element)},
                                                     {"granularity", granularity(format, false)},
                                                     {"mm_config", nullptr},
                                                     {"hp_value_lb", nullptr},
                                                     {"hp_value_ub", nullptr},
                                                     {"kernel_preference", auto_kernel()}});
    case Subclass::int8:
      return object("QuantizeTensorToInt8Kwargs", {{"granularity", granularity(format, false)},
                                                   {"mapping_type", mapping(format.rule == Rule::asymmetric)},
                                                   {"reduce_range", false}});
    case Subclass::mx:
      return object("QuantizeTensorToMXKwargs", {{"elem_dtype", dtype(format.element)},
                                                 {"block_size", format.group_cols},
                                                 {"scaling_mode", mx_scaling()},
                                                 {"kernel_preference", mx_kernel(format)},
                                                 {"is_swizzled_scales", false}});
    case Subclass::nvfp4:  // the Triton kernel has another floor for block scales, so its codes would not be ours
      return object("QuantizeTensorToNVFP4Kwargs", {{"block_size", format.group_cols},
                                                    {"is_swizzled_scales", false},
                                                    {"use_triton_kernel", false},
                                                    {"use_dynamic_per_tensor_scale", is_dynamic_tensor_scale(recipe)}});
    default:
      return nullptr;
  }
}

Json attributes(Subclass subclass, const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  const Json block = {format.group_rows == 0 ? module.m : format.group_rows,
                      format.group_cols == 0 ? module.k : format.group_cols};
  const Json input = dtype(module.input);
  const Json activation = activation_kwargs(subclass, module.recipe);
  switch (subclass) {
    case Subclass::float8: {
      const Json matmul = activation.is_null() ? Json() : object("Float8MMConfig", float8_matmul());
      return {{"block_size", block},
              {"mm_config", matmul},
              {"act_quant_kwargs", activation},
              {"kernel_preference", auto_kernel()},
              {"dtype", input}};
    }
    case Subclass::int8:
      return {{"act_quant_kwargs", activation}, {"reduce_range", false}, {"block_size", block}, {"dtype", input}};
    case Subclass::intx: {
      const Json word = module.recipe.activation ? Json("int8_asym_per_token") : Json();
      return {{"target_dtype", dtype(format.element)},
              {"block_size", block},
              {"dtype", input},
              {"activation_quantization", word}};
    }
    case Subclass::int4:  // activation_dtype only says that activations are not fp8
      return {{"activation_dtype", dtype(Elem::bf16)}, {"block_size", block}, {"shape", {module.m, module.k}}};
    case Subclass::mx: {
      const Json kernel = activation.is_null() ? object("KernelPreference", "EMULATED") : mx_kernel(format);
      return {{"elem_dtype", dtype(format.element)}, {"block_size", format.group_cols}, {"orig_dtype", input},
              {"kernel_preference", kernel},         {"act_quant_kwargs", activation},  {"is_swizzled_scales", false}};
    }
    case Subclass::nvfp4:
      return {{"is_swizzled_scales", false},
              {"use_triton_kernel", false},
              {"act_quant_kwargs", activation},
              {"block_size", format.group_cols},
              {"orig_dtype", input}};
  }
  return nullptr;
}

Json float8_config(const Recipe& recipe) {
  const BlockFormat& weight = recipe.weight;
  if (recipe.activation)
    return versioned("Float8DynamicActivationFloat8WeightConfig", 2,
                     {{"activation_dtype", dtype(Elem::e4m3)},
                      {"weight_dtype", dtype(Elem::e4m3)},
                      {"granularity", {granularity(recipe.activation->format, true), granularity(weight, true)}},
                      {"packing_format", object("Float8PackingFormat", "PLAIN")},
                      {"mm_config", versioned("Float8MMConfig", 1, float8_matmul())},
                      {"activation_value_lb", nullptr},
                      {"activation_value_ub", nullptr},
                      {"kernel_preference", auto_kernel()},
                      {"set_inductor_config", true},
                      {"alg_id", 0}});
  Json data = {{"weight_dtype", dtype(Elem::e4m3)}, {"set_inductor_config", true}};
  // The config refuses blocks of several rows, which the tensor can have: then nothing is said rather than another
  // thing.
  if (weight.group_rows <= 1) data["granularity"] = granularity(weight, true);
  return versioned("Float8WeightOnlyConfig", 2, data);
}

Json int8_config(const Recipe& recipe) {
  const Json weight = granularity(recipe.weight, true);
  if (!recipe.activation)
    return versioned("Int8WeightOnlyConfig", 2,
                     {{"group_size", nullptr}, {"granularity", weight}, {"set_inductor_config", true}});
  const Json activation = granularity(recipe.activation->format, true);
  const Json both = activation == weight ? weight : Json::array({activation, weight});
  const Json type = mapping(recipe.activation->format.rule == Rule::asymmetric);
  if (recipe.activation->scope == Scope::calibrated)  // the scale itself is a tensor; a config cannot carry it
    return versioned("Int8StaticActivationInt8WeightConfig", 1,
                     {{"act_quant_scale", nullptr},
                      {"act_quant_zero_point", nullptr},
                      {"granularity", both},
                      {"act_mapping_type", type},
                      {"set_inductor_config", true},
                      {"reduce_range", false}});
  return versioned("Int8DynamicActivationInt8WeightConfig", 2,
                   {{"act_mapping_type", type},
                    {"weight_only_decode", false},
                    {"granularity", both},
                    {"set_inductor_config", true},
                    {"reduce_range", false}});
}

Json intx_config(const Recipe& recipe) {
  const BlockFormat& weight = recipe.weight;
  const Json type = mapping(weight.zero_point == ZeroPoint::integer);
  const Json packing = object("IntxPackingFormat", "UNPACKED_TO_INT8");
  const Json algorithm = object("IntxChooseQParamsAlgorithm", "AFFINE");
  if (recipe.activation)
    return versioned("Int8DynamicActivationIntxWeightConfig", 2,
                     {{"weight_dtype", dtype(weight.element)},
                      {"weight_granularity", intx_granularity(weight)},
                      {"weight_mapping_type", type},
                      {"weight_scale_dtype", nullptr},
                      {"act_mapping_type", mapping(true)},
                      {"intx_packing_format", packing},
                      {"intx_choose_qparams_algorithm", algorithm}});
  return versioned("IntxWeightOnlyConfig", 2,
                   {{"weight_dtype", dtype(weight.element)},
                    {"granularity", intx_granularity(weight)},
                    {"mapping_type", type},
                    {"scale_dtype", nullptr},
                    {"intx_packing_format", packing},
                    {"intx_choose_qparams_algorithm", algorithm}});
}

Json nvfp4_config(const Recipe& recipe) {
  if (!recipe.activation)
    return versioned("NVFP4WeightOnlyConfig", 1, {{"use_dynamic_per_tensor_scale", recipe.weight.tensor_scale}});
  // torchao writes the step as an enum, which its own config_from_dict() cannot find; it takes a string as well.
  const Json step = recipe.activation->scope == Scope::calibrated ? Json("convert") : Json();
  return versioned("NVFP4DynamicActivationNVFP4WeightConfig", 1,
                   {{"use_triton_kernel", false},
                    {"use_dynamic_per_tensor_scale", is_dynamic_tensor_scale(recipe)},
                    {"step", step}});
}

}  // namespace

Json describe(const QuantizedModule& module) {
  const Subclass subclass = *subclass_of(module.recipe.weight);
  Json json = {{"_type", std::string(name(subclass))}};
  json["_data"] = attributes(subclass, module);
  json["_tensor_data_names"] = Json::array();
  const std::size_t prefix = tensor_name(module.name, "").size();
  for (const TensorEntry& entry : layout(module)) json["_tensor_data_names"].push_back(entry.name.substr(prefix));
  return json;
}

Json config(const Recipe& recipe) {
  const BlockFormat& weight = recipe.weight;
  switch (*subclass_of(weight)) {
    case Subclass::float8:
      return float8_config(recipe);
    case Subclass::int8:
      return int8_config(recipe);
    case Subclass::intx:
      return intx_config(recipe);
    case Subclass::int4:
      return versioned(
          "Int4WeightOnlyConfig", 2,
          {{"group_size", weight.group_cols},
           {"set_inductor_config", true},
           {"int4_packing_format", object("Int4PackingFormat", "PLAIN")},
           {"int4_choose_qparams_algorithm", object("Int4ChooseQParamsAlgorithm", weight.hqq ? "HQQ" : "TINYGEMM")},
           {"int4_tile_packed_ntile", 8}});
    case Subclass::mx:
      return versioned("MXDynamicActivationMXWeightConfig", 1,
                       {{"block_size", weight.group_cols},
                        {"activation_dtype", dtype(weight.element)},
                        {"weight_dtype", dtype(weight.element)},
                        {"kernel_preference", mx_kernel(weight)},
                        {"scaling_mode", mx_scaling()}});
    case Subclass::nvfp4:
      return nvfp4_config(recipe);
  }
  return nullptr;
}

}  // namespace lowp::checkpoint::torchao
