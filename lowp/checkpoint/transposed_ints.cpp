#include "lowp/checkpoint/transposed_ints.h"

#include <string_view>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/packing.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint::transposed_ints {

using formats::Rule;

std::string format_name(int bits, int group, bool symmetric) {
  return fmt::format("int{}{}{}", bits, group ? fmt::format("_g{}", group) : "_channel", symmetric ? "" : "_asym");
}

std::string refusal(const formats::Recipe& recipe, const std::string& dialect) {
  const formats::BlockFormat& weight = recipe.weight;
  if (recipe.keeps()) return "";
  if (recipe.activation) return dialect + " is weight-only";
  if (weight.rule != Rule::symmetric && weight.rule != Rule::asymmetric)
    return fmt::format("{} has integers with integer zero points only", dialect);
  if (!weight.scale_in_input_dtype || weight.group_rows != 1)
    return fmt::format("{} has scales for rows or groups in the dtype of the model", dialect);
  return "";
}

std::string describe(int bits, int group) {
  return group ? fmt::format("{} bits in groups of {}", bits, group) : fmt::format("{} bits in whole rows", bits);
}

QuantizedModule module(const Checkpoint& checkpoint, const std::string& name, int bits, int group, std::int64_t n,
                       std::int64_t k) {
  const std::string scheme = describe(bits, group);
  QuantizedModule module;
  module.name = name;
  module.m = n;
  module.k = k;
  module.recipe = formats::recipe(format_name(bits, group, false) + "-bf16");
  if (const std::string wrong = formats::misfit(module.recipe.weight, n, k); !wrong.empty())
    fail(ErrorCode::bad_input, "{}: module {} [{}, {}] of {}: {}", file_of(checkpoint, name + ".qweight"), quote(name),
         n, k, scheme, wrong);
  const std::int64_t groups = module.recipe.weight.scale_cols(k);
  module.input = element_of(required(checkpoint, name + ".scales", kHighPrecision, {groups, n}, scheme).dtype);
  required(checkpoint, name + ".qzeros", DType::i32, {groups, dense_words(n, bits)}, scheme);
  return module;
}

std::vector<std::string> names(const Checkpoint& checkpoint) {
  constexpr std::string_view kCodes = ".qweight";
  std::vector<std::string> found;
  for (const StoredTensor& tensor : checkpoint.tensors())
    if (tensor.entry.name.ends_with(kCodes))
      found.push_back(tensor.entry.name.substr(0, tensor.entry.name.size() - kCodes.size()));
  return found;
}

int group_of(const QuantizedModule& module) {
  const int group = module.recipe.weight.group_cols;
  return group ? group : static_cast<int>(module.k);
}

Tensor decode_scales(const Checkpoint& checkpoint, const QuantizedModule& module) {
  return copy_as_f32(transpose(checkpoint.find(module.name + ".scales")->view()).view());
}

Tensor encode_scales(const QuantizedModule& module, const QuantizedMatrix& weight) {
  return transpose(copy_rounded(weight.scale, dtype_of(module.input)).view());
}

QuantizedMatrix matrix(const Checkpoint& checkpoint, const QuantizedModule& module) {
  QuantizedMatrix weight = begin_matrix(module);
  weight.scale = decode_scales(checkpoint, module);
  return weight;
}

}  // namespace lowp::checkpoint::transposed_ints
