// NVIDIA ModelOpt's unified Hugging Face export, which TensorRT-LLM, vLLM and SGLang read: "weight", "weight_scale",
// "weight_scale_2", "input_scale", "pre_quant_scale" (checkpoint-formats 3). All scales are multipliers.
#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "lowp/base/error.h"
#include "lowp/base/match.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

using formats::BlockFormat;
using formats::Elem;

constexpr const char* kSideFile = "hf_quant_config.json";
// Of the producer; readers look at the name only.
constexpr const char* kModeloptVersion = "0.40.0";

// A quant_algo: formats with "<G>" for the declared group size, and activations with and without an input_scale in the
// file ("" if it must be there or must not). The first row with a recipe is how it is written.
struct Algorithm {
  std::string_view name, weight, with_scale, without_scale;
};
constexpr Algorithm kAlgorithms[] = {
    {"FP8", "fp8_tensor", "fp8_static", "fp8"},
    {"FP8_PER_CHANNEL_PER_TOKEN", "fp8", "", "fp8"},
    {"FP8_PB_WO", "fp8_block128", "", "fp8_group128"},
    {"NVFP4", "nvfp4", "nvfp4_static", ""},
    {"NVFP4_AWQ", "nvfp4", "nvfp4_static", ""},
    {"W4A16_NVFP4", "nvfp4", "", "bf16"},
    {"W4A8_NVFP4_FP8", "nvfp4", "fp8_static", ""},
    {"MXFP8", "mxfp8", "", "mxfp8"},
    {"MXFP4", "mxfp4", "", "mxfp4"},
    {"W4A8_MXFP4_FP8", "mxfp4", "fp8_static", "fp8"},
    {"W4A16_AWQ", "int4_g<G>", "", "bf16"},
    {"W4A8_AWQ", "int4_g<G>", "fp8_static", ""},
    {"W8A16", "int8", "", "bf16"},
    {"W8A8_SQ_PER_CHANNEL", "int8", "int8_static", "int8"},
};

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

const Algorithm& find_algorithm(const std::string& text, const std::string& where) {
  for (const Algorithm& algorithm : kAlgorithms)
    if (algorithm.name == upper(text)) return algorithm;
  fail(ErrorCode::unsupported, "{}: quant_algo {} is not one that lowp reads", where, quote(text));
}

// The algorithm that is written for a recipe, or nullptr.
const Algorithm* algorithm_of(const formats::Recipe& recipe) {
  const std::string activation = recipe.activation ? recipe.activation->word : "bf16";
  for (const Algorithm& algorithm : kAlgorithms)
    if (formats::match_pattern(algorithm.weight, recipe.weight.name) &&
        (activation == algorithm.with_scale || activation == algorithm.without_scale))
      return &algorithm;
  return nullptr;
}

struct ModeloptScheme {
  const Algorithm* algorithm = nullptr;
  int group = 0;  // of "<G>"; 0: not declared

  std::string describe() const {
    return group ? fmt::format("quant_algo {} with group_size {}", algorithm->name, group)
                 : fmt::format("quant_algo {}", algorithm->name);
  }
};

class ModeloptConfig {
 public:
  explicit ModeloptConfig(const Checkpoint& checkpoint) {
    std::optional<Json> file;
    const Json* json = quantization_config(checkpoint);
    std::string where = checkpoint.path() + ": config.json: quantization_config";
    if (!json || !value_of(*json, "quant_algo")) {
      where = checkpoint.path() + ": " + kSideFile;
      file = side_file(checkpoint, kSideFile);
      json = value_of(*file, "quantization");
      if (!json || !json->is_object()) fail(ErrorCode::bad_input, "{}: expected an object 'quantization'", where);
    }
    if (const std::string algorithm = text_or(*json, "quant_algo", "", where); upper(algorithm) != "MIXED_PRECISION")
      all_ = scheme(*json, where);
    else
      read_layers(*json, where);
  }

  /// nullptr: no layer of this name is quantized.
  const ModeloptScheme* find(const std::string& module) const {
    if (all_) return &*all_;
    const auto found = layers_.find(module);
    return found == layers_.end() ? nullptr : &found->second;
  }

 private:
  static ModeloptScheme scheme(const Json& json, const std::string& where) {
    const std::string algorithm = text_or(json, "quant_algo", "", where);
    int group = int_or(json, "group_size", 0, where);
    if (group == 0)  // the flat form has it in the group of layers
      if (const Json* groups = value_of(json, "config_groups"); groups && groups->is_object())
        for (const auto& [name, entry] : groups->items())
          if (const Json* weights = entry.is_object() ? value_of(entry, "weights") : nullptr)
            group = int_or(*weights, "group_size", group, where + ": config_groups." + name);
    return {&find_algorithm(algorithm, where), std::max(group, 0)};
  }

  void read_layers(const Json& json, const std::string& where) {
    const Json* layers = value_of(json, "quantized_layers");
    if (!layers || !layers->is_object())
      fail(ErrorCode::bad_input, "{}: quant_algo MIXED_PRECISION without an object quantized_layers", where);
    for (const auto& [name, layer] : layers->items()) {
      const std::string here = where + ": quantized_layers: " + quote(name);
      if (!layer.is_object()) fail(ErrorCode::bad_input, "{}: expected an object", here);
      layers_.emplace(name, scheme(layer, here));
    }
  }

  std::optional<ModeloptScheme> all_;
  std::map<std::string, ModeloptScheme> layers_;
};

// --- how a format's tensors look

bool is_pairs_of_rows(const BlockFormat& format) {  // int4: two rows in a byte
  return !formats::info(format.element).is_float() && formats::info(format.element).bits == 4;
}

TensorEntry codes_entry(const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  const std::string name = module.name + ".weight";
  if (format.two_codes_a_byte()) return {name, DType::u8, {module.m, module.k / 2}};
  if (is_pairs_of_rows(format)) return {name, DType::u8, {module.m / 2, module.k}};
  return {name, dtype_of(format.element), {module.m, module.k}};
}

// [] for one, [m] for rows, [m / 128, 1, k / 128, 1] for blocks.
Shape scale_shape(const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  const std::int64_t rows = format.scale_rows(module.m), cols = format.scale_cols(module.k);
  if (format.group_rows == 0) return {};
  if (format.group_rows > 1) return {rows, 1, cols, 1};
  return format.group_cols == 0 ? Shape{rows} : Shape{rows, cols};
}

DType scale_type(const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  if (format.scale == Elem::e8m0) return DType::u8;
  return dtype_of(format.scale_in_input_dtype ? module.input : format.scale);
}

bool has_input_scale(const formats::Recipe& recipe) {
  return recipe.activation && recipe.activation->scope == formats::Scope::calibrated;
}

// Signed codes [m, k] as U8 [m / 2, k]: row 2i in the low nibble of row i, row 2i + 1 in the high one.
Tensor pack_rows(const Tensor& codes) {
  const std::int64_t m = codes.shape()[0], k = codes.shape()[1];
  Tensor packed(DType::u8, {m / 2, k});
  const auto* in = codes.as<std::uint8_t>();
  for (std::int64_t r = 0; r < m / 2; ++r)
    for (std::int64_t c = 0; c < k; ++c)
      packed.as<std::uint8_t>()[r * k + c] =
          static_cast<std::uint8_t>((in[2 * r * k + c] & 0xF) | (in[(2 * r + 1) * k + c] << 4));
  return packed;
}
Tensor unpack_rows(const TensorView& packed) {
  const std::int64_t m = 2 * packed.shape[0], k = packed.shape[1];
  Tensor codes(DType::i8, {m, k});
  const auto* in = packed.as<std::uint8_t>();
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t c = 0; c < k; ++c)
      codes.as<std::int8_t>()[r * k + c] =
          static_cast<std::int8_t>((((in[r / 2 * k + c] >> (r % 2 * 4)) & 0xF) ^ 8) - 8);
  return codes;
}

class ModelOpt final : public Dialect {
 public:
  std::string name() const override { return "modelopt"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    if (recipe.keeps() || algorithm_of(recipe)) return "";
    return fmt::format("ModelOpt has no quant_algo for {}", recipe.name);
  }

  std::string obstacle(const QuantizedModule& module) const override {
    if (module.reordered) return Dialect::obstacle(module);
    if (is_pairs_of_rows(module.recipe.weight) && module.m % 2 != 0)
      return fmt::format("ModelOpt packs two rows in a byte, and there are {}", module.m);
    return refusal(module.recipe);
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    std::vector<TensorEntry> entries = {codes_entry(module),
                                        {module.name + ".weight_scale", scale_type(module), scale_shape(module)}};
    const auto add = [&](const char* part, DType type, Shape shape) {
      entries.push_back({module.name + part, type, std::move(shape)});
    };
    if (module.recipe.weight.tensor_scale) add(".weight_scale_2", DType::f32, {});
    if (has_input_scale(module.recipe)) add(".input_scale", DType::f32, {});
    if (module.pre_scaled) add(".pre_quant_scale", DType::f32, {module.k});
    return entries;
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    std::vector<Tensor> tensors;
    for (const TensorEntry& entry : layout(module)) {
      const std::string part = entry.name.substr(module.name.size() + 1);
      Tensor& tensor = tensors.emplace_back();
      if (part == "weight")
        tensor = is_pairs_of_rows(weight.format) ? pack_rows(weight.codes) : copy(weight.codes.view());
      else if (part == "weight_scale")
        tensor = is_high_precision(entry.dtype) ? copy_rounded(weight.scale, entry.dtype) : copy(weight.scale.view());
      else if (part == "weight_scale_2")
        tensor = one_f32(weight.tensor_scale);
      else if (part == "input_scale")
        tensor = one_f32(module.activation_scale.value());
      else
        tensor = copy(weight.pre_scale.view());
      tensor = std::move(tensor).reinterpret(entry.dtype, entry.shape);
    }
    return tensors;
  }

  // Flat, as newer exports have it beside the side file.
  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    Json json = nested(modules, kept);
    Json flat = {{"quant_method", name()}};
    flat.update(json);
    flat["ignore"] = json["exclude_modules"];
    flat["kv_cache_scheme"] = nullptr;
    flat["producer"] = {{"name", "modelopt"}, {"version", kModeloptVersion}};
    return flat;
  }

  std::map<std::string, Json> side_files(std::span<const QuantizedModule> modules,
                                         std::span<const std::string> kept) const override {
    return {{kSideFile,
             {{"producer", {{"name", "modelopt"}, {"version", kModeloptVersion}}},
              {"quantization", nested(modules, kept)}}}};
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    const std::string method = quant_method(checkpoint);
    return method.starts_with(name()) || method == "nvfp4" ||
           (!quantization_config(checkpoint) && has_side_file(checkpoint, kSideFile));
  }

  // Tensors win over the list of excluded modules, which is often wrong.
  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    constexpr std::string_view kScale = ".weight_scale";
    const ModeloptConfig config(checkpoint);
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (!tensor.entry.name.ends_with(kScale)) continue;
      const std::string name = tensor.entry.name.substr(0, tensor.entry.name.size() - kScale.size());
      const ModeloptScheme* scheme = config.find(name);
      if (!scheme)
        fail(ErrorCode::bad_input, "{}: module {} has quantized tensors, but is not in quantized_layers",
             tensor.file->path(), quote(name));
      result.push_back(module(checkpoint, name, *scheme));
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix weight = begin_matrix(module);
    const TensorView codes = checkpoint.find(module.name + ".weight")->view();
    const TensorView scale = checkpoint.find(module.name + ".weight_scale")->view();
    weight.codes = is_pairs_of_rows(weight.format) ? unpack_rows(codes) : copy(codes);
    weight.scale = (weight.format.scale == Elem::f32 ? copy_as_f32(scale) : copy(scale))
                       .reinterpret(dtype_of(weight.format.scale),
                                    {weight.format.scale_rows(module.m), weight.format.scale_cols(module.k)});
    if (weight.format.tensor_scale) weight.tensor_scale = required_one(checkpoint, module.name + ".weight_scale_2");
    if (module.pre_scaled) weight.pre_scale = copy_as_f32(checkpoint.find(module.name + ".pre_quant_scale")->view());
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names;
    for (const char* part : {"weight", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"})
      if (std::string name = fmt::format("{}.{}", module.name, part); checkpoint.find(name))
        names.push_back(std::move(name));
    return names;
  }

 private:
  // What stands under "quantization". vLLM wants the keys to be there, null or not.
  static Json nested(std::span<const QuantizedModule> modules, std::span<const std::string> kept) {
    const auto key = [](const QuantizedModule& module) { return layer_json(module).dump(); };
    const bool uniform = std::all_of(modules.begin(), modules.end(),
                                     [&](const QuantizedModule& module) { return key(module) == key(modules[0]); });
    Json json = {{"quant_algo", "MIXED_PRECISION"}, {"kv_cache_quant_algo", nullptr}};
    if (uniform && !modules.empty()) {
      json.update(layer_json(modules[0]));
    } else {
      Json layers = Json::object();
      auto& map = layers.get_ref<Json::object_t&>();
      for (const QuantizedModule& module : modules) map.emplace_back(module.name, layer_json(module));
      json["quantized_layers"] = std::move(layers);
    }
    json["exclude_modules"] = std::vector<std::string>(kept.begin(), kept.end());
    return json;
  }

  static Json layer_json(const QuantizedModule& module) {
    const BlockFormat& format = module.recipe.weight;
    Json json = {{"quant_algo", algorithm_of(module.recipe)->name}};
    if (format.group_rows == 1 && format.group_cols > 0) json["group_size"] = format.group_cols;
    if (module.pre_scaled) {
      if (json["quant_algo"] == "NVFP4") json["quant_algo"] = "NVFP4_AWQ";
      json["has_zero_point"] = false;
      json["pre_quant_scale"] = true;
    }
    return json;
  }

  static QuantizedModule module(const Checkpoint& checkpoint, const std::string& name, const ModeloptScheme& scheme) {
    const Algorithm& algorithm = *scheme.algorithm;
    QuantizedModule module;
    module.name = name;
    const bool has_scale = checkpoint.find(name + ".input_scale") != nullptr;
    std::string weight(algorithm.weight);
    if (const auto at = weight.find("<G>"); at != std::string::npos)
      weight.replace(at, 3, std::to_string(scheme.group ? scheme.group : 128));
    // Without an input_scale where there should be one: experts that no calibration text reached (see
    // activation_scale).
    const std::string_view activation = has_scale && !algorithm.with_scale.empty() ? algorithm.with_scale
                                        : !algorithm.without_scale.empty()         ? algorithm.without_scale
                                                                                   : algorithm.with_scale;
    module.recipe = formats::recipe(fmt::format("{}-{}", weight, activation));
    const BlockFormat& format = module.recipe.weight;
    const std::string words = scheme.describe();
    module.m = module.k = -1;
    const TensorEntry any = codes_entry(module);  // for its type
    const Shape shape = required(checkpoint, any.name, any.dtype, {-1, -1}, words).shape;
    module.m = shape[0] * (is_pairs_of_rows(format) ? 2 : 1);
    module.k = shape[1] * (format.two_codes_a_byte() ? 2 : 1);
    if (const std::string wrong = formats::misfit(format, module.m, module.k); !wrong.empty())
      fail(ErrorCode::bad_input, "{}: module {} [{}, {}] of {}: {}", file_of(checkpoint, any.name), quote(name),
           module.m, module.k, words, wrong);
    if (scheme.group && format.group_rows == 1 && format.group_cols > 0 && format.group_cols != scheme.group)
      fail(ErrorCode::bad_input, "{}: module {} is declared {}, which has groups of {}", checkpoint.path(), quote(name),
           words, format.group_cols);
    const DType scale = check_scale(checkpoint, module, words);
    module.input = format.scale_in_input_dtype ? element_of(scale) : model_element(checkpoint);
    if (format.tensor_scale) required_one(checkpoint, name + ".weight_scale_2");
    if (has_input_scale(module.recipe)) module.activation_scale = activation_scale(checkpoint, name);
    if (checkpoint.find(name + ".pre_quant_scale")) {
      required(checkpoint, name + ".pre_quant_scale", kHighPrecision, {module.k}, words);
      module.pre_scaled = true;
    }
    return module;
  }

  // Its type. Rows may be [m] or [m, 1], one value of any rank, blocks of two or four dimensions.
  static DType check_scale(const Checkpoint& checkpoint, const QuantizedModule& module, const std::string& words) {
    const BlockFormat& format = module.recipe.weight;
    const std::string name = module.name + ".weight_scale";
    const std::int64_t rows = format.scale_rows(module.m), cols = format.scale_cols(module.k);
    Shape shape = scale_shape(module);
    const Shape& found = checkpoint.find(name)->entry.shape;
    if (format.group_rows == 0 && element_count(found) == 1) shape = found;
    if (found == Shape{rows, cols}) shape = found;
    if (format.scale == Elem::e8m0)
      return required(checkpoint, name, std::array{DType::u8, DType::f8_e8m0}, shape, words).dtype;
    if (format.scale == Elem::e4m3) return required(checkpoint, name, DType::f8_e4m3, shape, words).dtype;
    return required(checkpoint, name, kHighPrecision, shape, words).dtype;
  }

  // Experts that calibration never reached have none, or no sensible one: the largest of their neighbours, as vLLM
  // does.
  static float activation_scale(const Checkpoint& checkpoint, const std::string& module) {
    const std::string name = module + ".input_scale";
    if (checkpoint.find(name))
      if (const float value = required_one(checkpoint, name); value > 0 && is_finite(value)) return value;
    constexpr std::string_view kExperts = ".experts.";
    const auto at = module.rfind(kExperts);
    float largest = 0;
    if (at != std::string::npos) {
      const std::string prefix = module.substr(0, at + kExperts.size());
      const std::string ending = module.substr(module.rfind('.')) + ".input_scale";
      for (const StoredTensor& tensor : checkpoint.tensors())
        if (tensor.entry.name.starts_with(prefix) && tensor.entry.name.ends_with(ending))
          if (const float value = required_one(checkpoint, tensor.entry.name); value > largest && is_finite(value))
            largest = value;
    }
    if (largest == 0)
      fail(ErrorCode::bad_input, "{}: tensor {}: expected a positive multiplier", file_of(checkpoint, name),
           quote(name));
    return largest;
  }
};

}  // namespace

const Dialect& modelopt_dialect() {
  static const ModelOpt dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
