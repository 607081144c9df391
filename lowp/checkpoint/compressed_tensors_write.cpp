#include <algorithm>
#include <set>
#include <string_view>

#include "lowp/base/error.h"
#include "lowp/checkpoint/activation_order.h"
#include "lowp/checkpoint/compressed_tensors.h"
#include "lowp/checkpoint/dialect_support.h"

namespace lowp::checkpoint::compressed_tensors {
namespace {

using formats::BlockFormat;
using formats::Elem;

// The release of the package whose schema this is; readers do not act on it.
constexpr const char* kCompressedTensorsVersion = "0.20.0";

DType scale_type(const BlockFormat& format, Elem input) {
  if (format.scale == Elem::e8m0) return DType::u8;  // not F8_E8M0, which older readers do not know
  return dtype_of(format.scale_in_input_dtype ? input : format.scale);
}

// Global scales are divisors in the file.
float divisor(float multiplier, const std::string& tensor) {
  const float inverse = 1.0f / multiplier;
  if (!(multiplier > 0) || !is_finite(multiplier) || !is_finite(inverse))
    fail(ErrorCode::unsupported, "tensor {}: the scale {} has no reciprocal to store", quote(tensor), multiplier);
  return inverse;
}

float activation_scale(const QuantizedModule& module) {
  if (!module.recipe.activation->format.calibrated) return 1;  // see has_global_scale
  LOWP_CHECK(module.activation_scale, "{}: {} without a calibrated scale", module.name, module.recipe.name);
  return *module.activation_scale;
}

Tensor encode_codes(const QuantizedMatrix& weight, const Scheme& scheme, const TensorEntry& entry) {
  const Storage storage = *storage_of(scheme.format);
  if (storage == Storage::words && scheme.reordered)
    return pack_words(out_of_order(weight.codes, weight.column_order), scheme.weights.num_bits);
  if (storage == Storage::words) return pack_words(weight.codes, scheme.weights.num_bits);
  if (storage == Storage::stream && !weight.format.two_codes_a_byte())
    return pack_bytes(weight.codes, scheme.weights.num_bits);
  return copy(weight.codes.view()).reinterpret(entry.dtype, entry.shape);
}

Tensor encode_scale(const QuantizedMatrix& weight, const TensorEntry& entry) {
  Tensor scale = weight.format.scale == Elem::f32 ? copy_rounded(weight.scale, entry.dtype) : copy(weight.scale.view());
  return std::move(scale).reinterpret(entry.dtype, entry.shape);
}

Tensor encode_zero_point(const QuantizedMatrix& weight, const Scheme& scheme) {
  if (storage_of(scheme.format) == Storage::words) return pack_zero_points(weight.zero_point, scheme.weights.num_bits);
  return copy(weight.zero_point.view());
}

Tensor encode_shape(const QuantizedModule& module) {
  Tensor shape(DType::i64, {2});
  shape.as<std::int64_t>()[0] = module.m;
  shape.as<std::int64_t>()[1] = module.k;
  return shape;
}

// "re:^model\.layers\.\d+\.mlp\.gate$": a name with any number in the place of each component that is one.
std::string pattern_of(const std::string& name) {
  std::string pattern = "re:^";
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part(name.data() + begin, end - begin);
    if (begin) pattern += "\\.";
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos) {
      pattern += "\\d+";
    } else {
      for (const char c : part) {
        if (std::string_view("\\^$|?*+()[]{}").find(c) != std::string_view::npos) pattern += '\\';
        pattern += c;
      }
    }
    begin = end + 1;
  }
  return pattern + "$";
}

// One pattern for a Linear that many layers keep, names for the rest. A pattern is used only if it matches no quantized
// module.
std::vector<std::string> ignore_list(std::span<const QuantizedModule> modules, std::span<const std::string> kept) {
  constexpr int kMany = 4;
  std::set<std::string> quantized;
  std::map<std::string, int> count;
  bool has_head = false;
  for (const QuantizedModule& module : modules) {
    quantized.insert(pattern_of(module.name));
    has_head = has_head || module.name.ends_with("lm_head");
  }
  for (const std::string& name : kept) {
    ++count[pattern_of(name)];
    has_head = has_head || name.ends_with("lm_head");
  }
  std::vector<std::string> ignore;
  std::set<std::string> written;
  for (const std::string& name : kept) {
    const std::string pattern = pattern_of(name);
    const bool many = count[pattern] >= kMany && !quantized.contains(pattern);
    if (const std::string& entry = many ? pattern : name; written.insert(entry).second) ignore.push_back(entry);
  }
  // A tied output layer has no tensor of its own but is a Linear to every reader.
  if (!has_head) ignore.emplace_back("lm_head");
  return ignore;
}

}  // namespace

std::vector<TensorEntry> layout(const QuantizedModule& module) {
  const Scheme scheme = scheme_of(module);
  const BlockFormat& format = module.recipe.weight;
  const std::int64_t m = module.m, k = module.k;
  const int bits = scheme.weights.num_bits;
  const Storage storage = *storage_of(scheme.format);
  std::vector<TensorEntry> entries;
  const auto add = [&](const char* part, DType type, Shape shape) {
    entries.push_back({module.name + "." + part, type, std::move(shape)});
  };
  switch (storage) {
    case Storage::bytes:
      add("weight", dtype_of(format.element), {m, k});
      break;
    case Storage::words:
      add("weight_packed", DType::i32, {m, dense_words(k, bits)});
      break;
    case Storage::stream:
      add("weight_packed", DType::u8, {m, k * bits / 8});
      break;
  }
  add("weight_scale", scale_type(format, module.input), scale_shape(format, m, k));
  if (!scheme.weights.symmetric) {
    if (storage == Storage::words)
      add("weight_zero_point", DType::i32, {dense_words(m, bits), format.scale_cols(k)});
    else
      add("weight_zero_point", DType::i8, scale_shape(format, m, k));
  }
  if (storage == Storage::words) add("weight_shape", DType::i64, {2});
  if (scheme.reordered) add("weight_g_idx", DType::i32, {k});
  if (has_global_scale(scheme.weights)) add("weight_global_scale", DType::f32, {1});
  if (scheme.input && has_global_scale(*scheme.input))
    add("input_global_scale", DType::f32, {1});
  else if (scheme.input && scheme.input->dynamic == Dynamic::no)
    add("input_scale", DType::f32, {1});
  return entries;
}

std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) {
  LOWP_CHECK(weight.format.name == module.recipe.weight.name, "{}: a matrix in {} for {}", module.name,
             weight.format.name, module.recipe.name);
  const Scheme scheme = scheme_of(module);
  std::vector<Tensor> tensors;
  for (const TensorEntry& entry : layout(module)) {
    const std::string_view part = std::string_view(entry.name).substr(module.name.size() + 1);
    if (part == "weight" || part == "weight_packed") tensors.push_back(encode_codes(weight, scheme, entry));
    if (part == "weight_scale") tensors.push_back(encode_scale(weight, entry));
    if (part == "weight_zero_point") tensors.push_back(encode_zero_point(weight, scheme));
    if (part == "weight_shape") tensors.push_back(encode_shape(module));
    if (part == "weight_g_idx") tensors.push_back(group_index(weight.column_order, module.k, weight.format.group_cols));
    if (part == "weight_global_scale") tensors.push_back(one_f32(divisor(weight.tensor_scale, entry.name)));
    if (part == "input_global_scale") tensors.push_back(one_f32(divisor(activation_scale(module), entry.name)));
    if (part == "input_scale") tensors.push_back(one_f32(activation_scale(module)));
  }
  return tensors;
}

Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) {
  std::vector<std::pair<Scheme, std::vector<std::string>>> groups;
  std::map<std::pair<std::string, bool>, std::size_t> group_of;  // by recipe and order
  for (const QuantizedModule& module : modules) {
    const auto [place, added] = group_of.emplace(std::pair(module.recipe.name, module.reordered), groups.size());
    if (added) groups.push_back({scheme_of(module), {}});
    groups[place->second].second.push_back(module.name);
  }
  // One recipe: by class, as everybody writes it. Several: by name, so that no two targets can match one module.
  if (groups.size() == 1) groups[0].second = {"Linear"};
  Json config_groups = Json::object();
  std::set<std::string> formats;
  for (const auto& [scheme, targets] : groups) {
    formats.insert(scheme.format);
    config_groups[fmt::format("group_{}", config_groups.size())] = to_json(scheme, targets);
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", formats.empty()       ? "dense"
                     : formats.size() == 1 ? *formats.begin()
                                           : "mixed-precision"},
          {"quantization_status", "compressed"},
          {"config_groups", config_groups},
          {"ignore", ignore_list(modules, kept)},
          {"kv_cache_scheme", nullptr},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"global_compression_ratio", nullptr},
          {"version", kCompressedTensorsVersion}};
}

std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules) {
  std::string scales;  // by hand, since adding a key to a Json object is linear
  for (const QuantizedModule& module : modules) {
    const auto& activation = module.recipe.activation;
    if (!activation || !activation->format.tensor_scale || !module.activation_scale) continue;
    scales += fmt::format("{}{}:\"{:08x}\"", scales.empty() ? "" : ",",
                          Json(module.name + ".input_global_scale").dump(), float_bits(*module.activation_scale));
  }
  std::map<std::string, std::string> result = {{kRecipesKey, recipe_note(modules)}};
  if (!scales.empty()) result[kTensorScalesKey] = "{" + scales + "}";
  return result;
}

}  // namespace lowp::checkpoint::compressed_tensors
