// quant_method "fp8" (DeepSeek, Qwen, Mistral and many others), "mxfp8" and "fbgemm_fp8": e4m3 "weight" with a scale
// tensor beside it that is a plain multiplier, whatever "inv" suggests (checkpoint-formats 5).
#include <array>
#include <map>

#include "lowp/base/error.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

using formats::Elem;

constexpr std::string_view kScaleNames[] = {".weight_scale_inv", ".weight_scale"};
constexpr std::string_view kInputScales[] = {".input_scale", ".activation_scale"};
constexpr DType kPowers[] = {DType::u8, DType::f8_e8m0};

// What a config says about all layers.
struct BlockScheme {
  std::string where;
  std::optional<std::array<int, 2>> block;  // weight_block_size
  bool per_row = false;                     // fbgemm_fp8
  bool is_static = false;                   // activation_scheme

  std::string describe() const {
    if (per_row) return "quant_method \"fbgemm_fp8\"";
    if (!block) return "no weight_block_size";
    return fmt::format("weight_block_size [{}, {}]", (*block)[0], (*block)[1]);
  }
};

BlockScheme read_scheme(const Checkpoint& checkpoint) {
  BlockScheme scheme;
  scheme.where = checkpoint.path() + ": config.json: quantization_config";
  const Json& json = *quantization_config(checkpoint);
  const std::string method = quant_method(checkpoint), where = scheme.where;
  if (const std::string fmt = text_or(json, "fmt", "e4m3", where); fmt != "e4m3" && fmt != "float8_e4m3fn")
    fail(ErrorCode::unsupported, "{}: fmt {} is not one that lowp reads (e4m3)", where, quote(fmt));
  const std::string activation = text_or(json, "activation_scheme", "dynamic", where);
  if (activation != "dynamic" && activation != "static")
    fail(ErrorCode::unsupported, "{}: activation_scheme {}: expected \"dynamic\" or \"static\"", where,
         quote(activation));
  scheme.is_static = activation == "static";
  scheme.per_row = method == "fbgemm_fp8";
  if (const Json* block = value_of(json, "weight_block_size")) {
    const auto is_size = [](const Json& item) {
      return item.is_number_integer() && item > 0 && item <= formats::kMaxGroup;
    };
    if (!block->is_array() || block->size() != 2 || !is_size((*block)[0]) || !is_size((*block)[1]))
      wrong(where, "weight_block_size", "[rows, columns]", *block);
    scheme.block = {(*block)[0].get<int>(), (*block)[1].get<int>()};
  } else if (method == "mxfp8") {
    scheme.block = {1, 32};
  }
  if (scheme.block && *scheme.block != std::array{128, 128} && *scheme.block != std::array{1, 32})
    fail(ErrorCode::unsupported, "{}: {}: lowp has blocks of [128, 128] and, with power-of-two scales, of [1, 32]",
         where, scheme.describe());
  if (scheme.block && scheme.is_static)
    fail(ErrorCode::unsupported, "{}: {} with activation_scheme \"static\"", where, scheme.describe());
  return scheme;
}

// The name of the one that is there, or of the first.
template <std::size_t N>
std::string stored(const Checkpoint& checkpoint, const std::string& module, const std::string_view (&parts)[N]) {
  for (const std::string_view part : parts)
    if (checkpoint.find(module + std::string(part))) return module + std::string(part);
  return module + std::string(parts[0]);
}

bool is_powers(const QuantizedModule& module) { return module.recipe.weight.scale == Elem::e8m0; }

class Fp8Block final : public Dialect {
 public:
  std::string name() const override { return "fp8-block"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    if (recipe.keeps()) return "";
    for (const char* held : {"fp8_block128-fp8_group128", "mxfp8-mxfp8"})
      if (recipe.name == held) return "";
    return "fp8-block has blocks of [128, 128] with activations in groups of 128, and mxfp8 on both sides";
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    const formats::BlockFormat& format = module.recipe.weight;
    return {{module.name + std::string(kWeight), DType::f8_e4m3, {module.m, module.k}},
            {module.name + std::string(kScaleNames[0]),
             is_powers(module) ? DType::u8 : DType::f32,
             {format.scale_rows(module.m), format.scale_cols(module.k)}}};
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    std::vector<Tensor> tensors;
    tensors.push_back(copy(weight.codes.view()));
    const TensorEntry entry = layout(module)[1];
    tensors.push_back(copy(weight.scale.view()).reinterpret(entry.dtype, entry.shape));
    return tensors;
  }

  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    const bool powers = !modules.empty() && is_powers(modules[0]);
    for (const QuantizedModule& module : modules)
      if (is_powers(module) != powers)
        fail(ErrorCode::unsupported, "fp8-block has one block size for all layers, {} has {} and {} has {}",
             modules[0].name, modules[0].recipe.name, module.name, module.recipe.name);
    Json json = {{"quant_method", powers ? "mxfp8" : "fp8"},
                 {"activation_scheme", "dynamic"},
                 {"fmt", "e4m3"},
                 {"weight_block_size", powers ? Json{1, 32} : Json{128, 128}}};
    json["modules_to_not_convert"] = std::vector<std::string>(kept.begin(), kept.end());
    if (powers) json["ignored_layers"] = json["modules_to_not_convert"];
    return json;
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    const std::string method = quant_method(checkpoint);
    return method == "fp8" || method == "mxfp8" || method == "fbgemm_fp8";
  }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const BlockScheme scheme = read_scheme(checkpoint);
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      const TensorEntry& entry = tensor.entry;
      if (!entry.name.ends_with(kWeight) || entry.dtype != DType::f8_e4m3) continue;
      const std::string name = entry.name.substr(0, entry.name.size() - kWeight.size());
      const Shape shape = required(checkpoint, entry.name, DType::f8_e4m3, {-1, -1}, scheme.describe()).shape;
      result.push_back(module(checkpoint, scheme, name, shape[0], shape[1]));
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix weight = begin_matrix(module);
    weight.codes = copy(checkpoint.find(module.name + std::string(kWeight))->view());
    const TensorView scale = checkpoint.find(stored(checkpoint, module.name, kScaleNames))->view();
    weight.scale = (is_powers(module) ? copy(scale) : copy_as_f32(scale))
                       .reinterpret(dtype_of(weight.format.scale),
                                    {weight.format.scale_rows(module.m), weight.format.scale_cols(module.k)});
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names = {module.name + std::string(kWeight), stored(checkpoint, module.name, kScaleNames)};
    if (module.activation_scale) names.push_back(stored(checkpoint, module.name, kInputScales));
    return names;
  }

 private:
  static QuantizedModule module(const Checkpoint& checkpoint, const BlockScheme& scheme, const std::string& name,
                                std::int64_t m, std::int64_t k) {
    QuantizedModule module;
    module.name = name;
    module.m = m;
    module.k = k;
    module.input = model_element(checkpoint);
    const char* recipe = scheme.per_row  ? "fp8-fp8"
                         : !scheme.block ? (scheme.is_static ? "fp8_tensor-fp8_static" : "fp8_tensor-fp8")
                         : *scheme.block == std::array{128, 128} ? "fp8_block128-fp8_group128"
                                                                 : "mxfp8-mxfp8";
    module.recipe = formats::recipe(recipe);
    const formats::BlockFormat& format = module.recipe.weight;
    const std::string words = scheme.describe();
    if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
      fail(ErrorCode::unsupported, "{}: module {} [{}, {}] with {}: {}", checkpoint.path(), quote(name), m, k, words,
           wrong);
    const std::string scale = stored(checkpoint, name, kScaleNames);
    Shape shape = {format.scale_rows(m), format.scale_cols(k)};
    // One value may be [], [1] or [1, 1], one for each row [m] or [m, 1].
    if (const StoredTensor* found = checkpoint.find(scale);
        found && shape[1] == 1 && found->entry.shape.size() < 2 && element_count(found->entry.shape) == shape[0])
      shape = found->entry.shape;
    if (is_powers(module))
      required(checkpoint, scale, kPowers, shape, words);
    else
      required(checkpoint, scale, kHighPrecision, shape, words);
    if (scheme.is_static) module.activation_scale = required_one(checkpoint, stored(checkpoint, name, kInputScales));
    return module;
  }
};

}  // namespace

const Dialect& fp8_block_dialect() {
  static const Fp8Block dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
