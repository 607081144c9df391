// GPTQ, as GPTQModel, AutoGPTQ and auto-round write it: "qweight" I32 [k * bits / 32, n] packed along k, "qzeros" I32
// [groups, n * bits / 32] packed along n, "scales" [groups, n], "g_idx" I32 [k] (checkpoint-formats 7.2).
#include <algorithm>
#include <array>
#include <map>

#include "lowp/base/error.h"
#include "lowp/base/match.h"
#include "lowp/checkpoint/activation_order.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/packing.h"
#include "lowp/checkpoint/transposed_ints.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

namespace ints = transposed_ints;

constexpr std::array kWidths = {2, 3, 4, 8};
constexpr const char* kConfigFile = "quantize_config.json";  // where older files have their config

struct GptqScheme {
  int bits = 4;
  int group = 0;  // columns; 0: a whole row
  bool symmetric = true;
};

// In version 1 a zero point is stored less one, modulo 2^bits.
enum class Zeros { unknown, v1, v2 };

// quantization_config, or quantize_config.json of older files.
class GptqConfig {
 public:
  explicit GptqConfig(const Checkpoint& checkpoint) {
    const Json* json = quantization_config(checkpoint);
    std::optional<Json> file;
    std::string where = checkpoint.path() + ": config.json: quantization_config";
    if (!json) {
      where = checkpoint.path() + ": " + kConfigFile;
      file = side_file(checkpoint, kConfigFile);
      json = &*file;
    }
    if (!json->is_object()) fail(ErrorCode::bad_input, "{}: expected an object", where);
    const std::string format = text_or(*json, "checkpoint_format", "gptq", where);
    if (format != "gptq" && format != "gptq_v2")
      fail(ErrorCode::unsupported, "{}: checkpoint_format {} is another layout; lowp reads \"gptq\" and \"gptq_v2\"",
           where, quote(format));
    zeros_ = format == "gptq" ? Zeros::v1 : Zeros::v2;
    base_ = scheme(*json, GptqScheme{}, where);
    if (const Json* dynamic = value_of(*json, "dynamic")) {
      if (!dynamic->is_object()) wrong(where, "dynamic", "an object", *dynamic);
      for (const auto& [key, value] : dynamic->items()) add_override(key, value, where + ": dynamic");
    }
  }

  /// nullopt: the module is left in high precision. The first override that matches wins.
  std::optional<GptqScheme> find(const std::string& module) const {
    for (const auto& [pattern, scheme] : overrides_)
      if (pattern.matches(module)) return scheme;
    return base_;
  }
  /// Of asymmetric weights; symmetric ones tell by themselves.
  Zeros zeros() const { return zeros_; }

 private:
  static GptqScheme scheme(const Json& json, GptqScheme result, const std::string& where) {
    result.bits = int_or(json, "bits", result.bits, where);
    if (std::find(kWidths.begin(), kWidths.end(), result.bits) == kWidths.end())
      fail(ErrorCode::unsupported, "{}: bits {}: GPTQ has {}", where, result.bits, fmt::join(kWidths, ", "));
    const int group = int_or(json, "group_size", result.group ? result.group : -1, where);
    if (group == 0) wrong(where, "group_size", "a size, or -1 for whole rows", json["group_size"]);
    result.group = std::max(group, 0);
    result.symmetric = bool_or(json, "sym", result.symmetric, where);
    return result;
  }

  // "-:PATTERN" excludes, "+:PATTERN" (or no sign) changes fields. Patterns are those of Python's re.match.
  void add_override(const std::string& key, const Json& value, const std::string& where) {
    const bool excludes = key.starts_with("-:");
    const std::string pattern = "re:" + (excludes || key.starts_with("+:") ? key.substr(2) : key);
    std::optional<GptqScheme> changed;
    if (!excludes) {
      if (!value.is_object()) wrong(where, key.c_str(), "an object", value);
      changed = scheme(value, base_, where + ": " + quote(key));
    }
    try {
      overrides_.emplace_back(NamePattern(pattern, where, NamePattern::Anchor::left), changed);
    } catch (const Error& error) {  // foreign text: the file's fault, not the caller's
      throw Error(ErrorCode::bad_input, error.what());
    }
  }

  GptqScheme base_;
  Zeros zeros_ = Zeros::v1;
  std::vector<std::pair<NamePattern, std::optional<GptqScheme>>> overrides_;
};

// Stored zero points, unsigned, as signed bytes around the middle: [groups, n].
Tensor stored_zeros(const Checkpoint& checkpoint, const QuantizedModule& module, int bits) {
  return unpack_words(checkpoint.find(module.name + ".qzeros")->view(), bits, module.m);
}

// What symmetric zero points, all in the middle, say of how they are stored: the label is often wrong.
Zeros version_of(const Tensor& zeros) {
  const auto* values = zeros.as<std::int8_t>();
  const auto all = [&](int value) {
    return std::all_of(values, values + zeros.bytes().size(), [&](std::int8_t z) { return z == value; });
  };
  return all(-1) ? Zeros::v1 : all(0) ? Zeros::v2 : Zeros::unknown;
}

QuantizedModule read_module(const Checkpoint& checkpoint, const std::string& name, const GptqScheme& scheme) {
  const std::string words = ints::describe(scheme.bits, scheme.group);
  const TensorView packed = required(checkpoint, name + ".qweight", DType::i32, {-1, -1}, words);
  const std::int64_t k = packed.shape[0] * 32 / scheme.bits, n = packed.shape[1];
  if (k * scheme.bits != packed.shape[0] * 32)
    fail(ErrorCode::bad_input, "{}: tensor {} {}: {} words do not hold whole columns of {}",
         file_of(checkpoint, name + ".qweight"), quote(name + ".qweight"), to_string(packed.shape), packed.shape[0],
         words);
  QuantizedModule module = ints::module(checkpoint, name, scheme.bits, scheme.group, n, k);
  if (scheme.symmetric) {
    if (version_of(stored_zeros(checkpoint, module, scheme.bits)) == Zeros::unknown)
      fail(ErrorCode::bad_input, "{}: tensor {} has zero points beside the middle, but the weights are declared sym",
           file_of(checkpoint, name + ".qzeros"), quote(name + ".qzeros"));
    module.recipe = formats::recipe(ints::format_name(scheme.bits, scheme.group, true) + "-bf16");
  }
  if (const std::string index = name + ".g_idx"; checkpoint.find(index))
    module.reordered = !column_order(required(checkpoint, index, DType::i32, {k}, words), ints::group_of(module),
                                     file_of(checkpoint, index) + ": tensor " + quote(index))
                            .empty();
  return module;
}

class Gptq final : public Dialect {
 public:
  std::string name() const override { return "gptq"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    if (const std::string why = ints::refusal(recipe, name()); !why.empty()) return why;
    const int bits = formats::info(recipe.weight.element).bits;
    if (!recipe.keeps() && std::find(kWidths.begin(), kWidths.end(), bits) == kWidths.end())
      return fmt::format("GPTQ has integers of {} bits", fmt::join(kWidths, ", "));
    return "";
  }

  std::string obstacle(const QuantizedModule& module) const override {
    if (module.pre_scaled) return Dialect::obstacle(module);
    if (const std::string why = refusal(module.recipe); !why.empty()) return why;
    const int bits = formats::info(module.recipe.weight.element).bits;
    if (module.k * bits % 32 != 0 || module.m * bits % 32 != 0)
      return fmt::format("GPTQ packs whole words of 32 bits along both sides, which [{}, {}] is not", module.m,
                         module.k);
    return "";
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    const int bits = formats::info(module.recipe.weight.element).bits;
    const std::int64_t groups = module.recipe.weight.scale_cols(module.k);
    return {{module.name + ".g_idx", DType::i32, {module.k}},
            {module.name + ".qweight", DType::i32, {dense_words(module.k, bits), module.m}},
            {module.name + ".qzeros", DType::i32, {groups, dense_words(module.m, bits)}},
            {module.name + ".scales", dtype_of(module.input), {groups, module.m}}};
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    const int bits = formats::info(weight.format.element).bits;
    const Tensor codes =
        weight.column_order.empty() ? copy(weight.codes.view()) : out_of_order(weight.codes, weight.column_order);
    Tensor zeros(DType::i8, {weight.format.scale_cols(module.k), module.m});
    if (!weight.zero_point.empty()) zeros = transpose(weight.zero_point.view());
    shift(zeros, bits, -1);
    std::vector<Tensor> tensors;
    tensors.push_back(group_index(weight.column_order, module.k, ints::group_of(module)));
    tensors.push_back(transpose(pack_words(codes, bits).view()));
    tensors.push_back(pack_words(zeros, bits));
    tensors.push_back(ints::encode_scales(module, weight));
    return tensors;
  }

  // One recipe for all: the config says it. Several: the most common one, and the others module by module.
  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    const std::string common = most_common(modules, [](const QuantizedModule& module) { return module.recipe.name; });
    Json json = {{"quant_method", name()}};
    Json dynamic = Json::object();
    bool reordered = false, head = false;
    for (const QuantizedModule& module : modules) {
      reordered = reordered || module.reordered;
      head = head || module.name.ends_with("lm_head");
      if (module.recipe.name != common) dynamic["+:^" + escaped(module.name) + "$"] = scheme_json(module.recipe.weight);
    }
    // Readers take every Linear but the head for quantized.
    for (const std::string& module : kept)
      if (!module.ends_with("lm_head")) dynamic["-:^" + escaped(module) + "$"] = Json::object();
    json.update(scheme_json(formats::recipe(common).weight));
    json["desc_act"] = reordered;
    json["lm_head"] = head;
    json["checkpoint_format"] = "gptq";
    if (!dynamic.empty()) json["dynamic"] = dynamic;
    return json;
  }

  std::map<std::string, Json> side_files(std::span<const QuantizedModule> modules,
                                         std::span<const std::string> kept) const override {
    return {{kConfigFile, config(modules, kept)}};
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    return is_auto_round(checkpoint, "gptq") || quant_method(checkpoint) == name() ||
           (!quantization_config(checkpoint) && has_side_file(checkpoint, kConfigFile));
  }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const GptqConfig config(checkpoint);
    std::vector<QuantizedModule> result;
    for (const std::string& module : ints::names(checkpoint)) {
      const std::optional<GptqScheme> scheme = config.find(module);
      if (!scheme)
        fail(ErrorCode::bad_input, "{}: module {} has quantized tensors, but \"dynamic\" excludes it",
             checkpoint.path(), quote(module));
      result.push_back(read_module(checkpoint, module, *scheme));
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix weight = ints::matrix(checkpoint, module);
    const int bits = formats::info(weight.format.element).bits;
    const Tensor words = transpose(checkpoint.find(module.name + ".qweight")->view());
    weight.codes = unpack_words(words.view(), bits, module.k);
    if (weight.format.zero_point == formats::ZeroPoint::integer) {
      Tensor zeros = stored_zeros(checkpoint, module, bits);
      if (GptqConfig(checkpoint).zeros() == Zeros::v1) shift(zeros, bits, 1);
      weight.zero_point = transpose(zeros.view());
    }
    if (module.reordered) {
      weight.column_order =
          column_order(checkpoint.find(module.name + ".g_idx")->view(), ints::group_of(module), module.name);
      weight.codes = into_order(weight.codes, weight.column_order);
    }
    return weight;
  }

 private:
  // Adds to integers of some bits around 0, which wrap.
  static void shift(Tensor& zeros, int bits, int by) {
    const int half = 1 << (bits - 1), mask = 2 * half - 1;
    for (std::byte& byte : zeros.bytes())
      byte = static_cast<std::byte>(((static_cast<std::int8_t>(byte) + half + by) & mask) - half);
  }

  static Json scheme_json(const formats::BlockFormat& weight) {
    return {{"bits", formats::info(weight.element).bits},
            {"group_size", weight.group_cols ? weight.group_cols : -1},
            {"sym", weight.zero_point == formats::ZeroPoint::none}};
  }

  static std::string escaped(const std::string& module) {
    std::string text;
    for (const char c : module) text += c == '.' ? std::string("\\.") : std::string(1, c);
    return text;
  }
};

}  // namespace

const Dialect& gptq_dialect() {
  static const Gptq dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
