// MLX's quantized models, read only: "weight" U32 [m, k * bits / 32], "scales" and, in the affine mode, "biases"
// [m, groups]; a value is code * scale + bias (checkpoint-formats 7.5).
#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/packing.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

constexpr const char* kKey = "quantization";
constexpr std::string_view kMlxScales = ".scales";

// Modes without biases: formats whose scales are bytes.
struct Mode {
  std::string_view name, format;
  int bits, group;
};
constexpr Mode kModes[] = {{"mxfp4", "mxfp4", 4, 32}, {"mxfp8", "mxfp8", 8, 32}, {"nvfp4", "nvfp4_single", 4, 16}};

struct MlxScheme {
  int bits = 4, group = 64;
  std::string mode = "affine";

  std::string describe() const { return fmt::format("mode {} with {} bits in groups of {}", mode, bits, group); }
};

const Json* config_of(const Checkpoint& checkpoint) {
  if (!checkpoint.config()) return nullptr;
  const auto found = checkpoint.config()->find(kKey);
  return found != checkpoint.config()->end() && found->is_object() && found->contains("bits") ? &*found : nullptr;
}

MlxScheme parse(const Json& json, MlxScheme scheme, const std::string& where) {
  scheme.mode = text_or(json, "mode", scheme.mode, where);
  const auto mode =
      std::find_if(std::begin(kModes), std::end(kModes), [&](const Mode& m) { return m.name == scheme.mode; });
  if (mode == std::end(kModes) && scheme.mode != "affine")
    fail(ErrorCode::unsupported, "{}: mode {} is not one that lowp reads", where, quote(scheme.mode));
  const bool affine = mode == std::end(kModes);
  scheme.bits = int_or(json, "bits", affine ? scheme.bits : mode->bits, where);
  scheme.group = int_or(json, "group_size", affine ? scheme.group : mode->group, where);
  const bool fits = affine ? scheme.bits >= 1 && scheme.bits <= 8 && scheme.group > 0
                           : scheme.bits == mode->bits && scheme.group == mode->group;
  if (!fits) fail(ErrorCode::bad_input, "{}: there is no {}", where, scheme.describe());
  return scheme;
}

std::string recipe_of(const MlxScheme& scheme) {
  for (const Mode& mode : kModes)
    if (mode.name == scheme.mode) return std::string(mode.format) + "-bf16";
  return fmt::format("int{}_g{}_bias-bf16", scheme.bits, scheme.group);
}

class Mlx final : public ReadOnlyDialect {
 public:
  std::string name() const override { return "mlx"; }

  bool recognizes(const Checkpoint& checkpoint) const override {
    return config_of(checkpoint) && quant_method(checkpoint).empty();
  }

  // Layers with a scheme of their own have it under their name.
  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const std::string where = checkpoint.path() + ": config.json: " + kKey;
    const Json& json = *config_of(checkpoint);
    const MlxScheme all = parse(json, {}, where);
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (!tensor.entry.name.ends_with(kMlxScales)) continue;
      const std::string name = tensor.entry.name.substr(0, tensor.entry.name.size() - kMlxScales.size());
      const Json* own = value_of(json, name.c_str());
      result.push_back(
          module(checkpoint, name, own && own->is_object() ? parse(*own, all, where + ": " + quote(name)) : all));
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix weight = begin_matrix(module);
    const int bits = formats::info(weight.format.element).bits;
    const TensorView words = checkpoint.find(module.name + ".weight")->view();
    const TensorView stream = {DType::u8, {module.m, module.k * bits / 8}, words.bytes};
    weight.codes = weight.format.two_codes_a_byte() || bits == 8
                       ? copy(stream).reinterpret(dtype_of(weight.format.element), stream.shape)
                       : unpack_bytes(stream, bits, module.k);
    const TensorView scales = checkpoint.find(module.name + std::string(kMlxScales))->view();
    if (weight.format.zero_point != formats::ZeroPoint::floating) {
      weight.scale = copy(scales).reinterpret(dtype_of(weight.format.scale), scales.shape);
      return weight;
    }
    weight.scale = copy_as_f32(scales);
    weight.zero_point = copy_as_f32(checkpoint.find(module.name + ".biases")->view());
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names;
    for (const char* part : {".weight", ".scales", ".biases"})
      if (std::string name = module.name + part; checkpoint.find(name)) names.push_back(std::move(name));
    return names;
  }

 private:
  static QuantizedModule module(const Checkpoint& checkpoint, const std::string& name, const MlxScheme& scheme) {
    const std::string words = scheme.describe();
    QuantizedModule module;
    module.name = name;
    module.recipe = formats::recipe(recipe_of(scheme));
    const formats::BlockFormat& format = module.recipe.weight;
    const Shape packed = required(checkpoint, name + ".weight", DType::u32, {-1, -1}, words).shape;
    module.m = packed[0];
    module.k = packed[1] * 32 / scheme.bits;
    if (module.k * scheme.bits != packed[1] * 32)
      fail(ErrorCode::bad_input, "{}: tensor {} {} does not hold whole rows of {}",
           file_of(checkpoint, name + ".weight"), quote(name + ".weight"), to_string(packed), words);
    if (const std::string wrong = formats::misfit(format, module.m, module.k); !wrong.empty())
      fail(ErrorCode::bad_input, "{}: module {} [{}, {}] of {}: {}", file_of(checkpoint, name + ".weight"), quote(name),
           module.m, module.k, words, wrong);
    const Shape groups = {module.m, format.scale_cols(module.k)};
    const std::string scales = name + std::string(kMlxScales);
    if (format.zero_point != formats::ZeroPoint::floating) {
      required(checkpoint, scales, DType::u8, groups, words);
      module.input = model_element(checkpoint);
      return module;
    }
    const DType type = required(checkpoint, scales, kHighPrecision, groups, words).dtype;
    required(checkpoint, name + ".biases", type, groups, words);
    module.input = element_of(type);
    return module;
  }
};

}  // namespace

const Dialect& mlx_dialect() {
  static const Mlx dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
