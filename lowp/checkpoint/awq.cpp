// AWQ, as AutoAWQ's "gemm" version writes it: "qweight" I32 [k, n / 8], "qzeros" I32 [groups, n / 8], "scales"
// [groups, n]; eight columns of the output in a word, in the order 0 2 4 6 1 3 5 7 (checkpoint-formats 7.1).
#include <algorithm>
#include <map>

#include "lowp/base/error.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/packing.h"
#include "lowp/checkpoint/transposed_ints.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

namespace ints = transposed_ints;

constexpr int kBits = 4;
constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // column of each nibble, from the low end

// Codes [rows, n] of bytes into the order of nibbles in words, and back.
void to_nibbles(Tensor& codes) {
  auto* values = codes.as<std::int8_t>();
  for (std::size_t word = 0; word < codes.bytes().size(); word += 8) {
    std::int8_t columns[8];
    std::copy_n(values + word, 8, columns);
    for (int i = 0; i < 8; ++i) values[word + i] = columns[kOrder[i]];
  }
}
void to_columns(Tensor& codes) {
  auto* values = codes.as<std::int8_t>();
  for (std::size_t word = 0; word < codes.bytes().size(); word += 8) {
    std::int8_t nibbles[8];
    std::copy_n(values + word, 8, nibbles);
    for (int i = 0; i < 8; ++i) values[word + kOrder[i]] = nibbles[i];
  }
}

// [rows, n / 8] -> i8 [rows, n]: unsigned codes less 8.
Tensor unpack(const TensorView& packed) {
  Tensor codes = unpack_words(packed, kBits, packed.shape[1] * 8);
  to_columns(codes);
  return codes;
}

Tensor pack(Tensor codes) {
  to_nibbles(codes);
  return pack_words(codes, kBits);
}

// Columns of a group; 0: a whole row.
int group_size(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.path() + ": config.json: quantization_config";
  const Json& config = *quantization_config(checkpoint);
  if (const int bits = int_or(config, "bits", kBits, where); bits != kBits)
    fail(ErrorCode::unsupported, "{}: bits {}: AWQ has 4", where, bits);
  if (const std::string version = text_or(config, "version", "gemm", where); version != "gemm" && version != "GEMM")
    fail(ErrorCode::unsupported, "{}: version {} has another layout; lowp reads \"gemm\"", where, quote(version));
  const int group = int_or(config, "group_size", 128, where);
  if (group == 0) wrong(where, "group_size", "a size, or -1 for whole rows", config["group_size"]);
  return std::max(group, 0);
}

class Awq final : public Dialect {
 public:
  std::string name() const override { return "awq"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    if (const std::string why = ints::refusal(recipe, name()); !why.empty()) return why;
    return recipe.keeps() || formats::info(recipe.weight.element).bits == kBits ? "" : "AWQ has integers of 4 bits";
  }

  std::string obstacle(const QuantizedModule& module) const override {
    if (const std::string why = Dialect::obstacle(module); !why.empty()) return why;
    return module.m % 8 == 0 ? "" : fmt::format("AWQ packs 8 rows in a word, and there are {}", module.m);
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    const std::int64_t groups = module.recipe.weight.scale_cols(module.k);
    return {{module.name + ".qweight", DType::i32, {module.k, module.m / 8}},
            {module.name + ".qzeros", DType::i32, {groups, module.m / 8}},
            {module.name + ".scales", dtype_of(module.input), {groups, module.m}}};
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    Tensor zeros(DType::i8, {weight.format.scale_cols(module.k), module.m});
    if (!weight.zero_point.empty()) zeros = transpose(weight.zero_point.view());
    std::vector<Tensor> tensors;
    tensors.push_back(pack(transpose(weight.codes.view())));
    tensors.push_back(pack(std::move(zeros)));
    tensors.push_back(ints::encode_scales(module, weight));
    return tensors;
  }

  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    const int group = modules.empty() ? 128 : modules[0].recipe.weight.group_cols;
    for (const QuantizedModule& module : modules)
      if (module.recipe.weight.group_cols != group)
        fail(ErrorCode::unsupported, "awq has one group size for all layers, {} has {} and {} has {}", modules[0].name,
             modules[0].recipe.name, module.name, module.recipe.name);
    Json json = {{"quant_method", name()}, {"bits", kBits},     {"group_size", group ? group : -1},
                 {"zero_point", true},     {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
    if (!kept.empty()) json["modules_to_not_convert"] = std::vector<std::string>(kept.begin(), kept.end());
    return json;
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    return is_auto_round(checkpoint, "awq") || quant_method(checkpoint) == name();
  }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const int group = group_size(checkpoint);
    const std::string words = ints::describe(kBits, group);
    std::vector<QuantizedModule> result;
    for (const std::string& name : ints::names(checkpoint)) {
      const TensorView packed = required(checkpoint, name + ".qweight", DType::i32, {-1, -1}, words);
      QuantizedModule module = ints::module(checkpoint, name, kBits, group, packed.shape[1] * 8, packed.shape[0]);
      // Zero points that are all in the middle are what symmetric means; the config cannot be relied on.
      const Tensor zeros = unpack(checkpoint.find(name + ".qzeros")->view());
      if (std::all_of(zeros.bytes().begin(), zeros.bytes().end(), [](std::byte b) { return b == std::byte{}; }))
        module.recipe = formats::recipe(ints::format_name(kBits, group, true) + "-bf16");
      result.push_back(std::move(module));
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix weight = ints::matrix(checkpoint, module);
    weight.codes = transpose(unpack(checkpoint.find(module.name + ".qweight")->view()).view());
    if (weight.format.zero_point == formats::ZeroPoint::integer)
      weight.zero_point = transpose(unpack(checkpoint.find(module.name + ".qzeros")->view()).view());
    return weight;
  }
};

}  // namespace

const Dialect& awq_dialect() {
  static const Awq dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
