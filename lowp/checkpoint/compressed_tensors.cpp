// compressed-tensors: the format of llm-compressor, which vLLM, SGLang, transformers and TensorRT-LLM read
// (checkpoint-formats section 2).
#include "lowp/checkpoint/compressed_tensors.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"

namespace lowp::checkpoint {
namespace compressed_tensors {

Scheme scheme_of(const QuantizedModule& module) {
  Spelling spelling = spell(module.recipe);
  LOWP_CHECK(spelling.refusal.empty(), "{}: {} has no spelling: {}", module.name, module.recipe.name, spelling.refusal);
  spelling.scheme.reordered = module.reordered;
  return std::move(spelling.scheme);
}

Shape scale_shape(const formats::BlockFormat& format, std::int64_t m, std::int64_t k) {
  if (format.group_rows == 0) return {1};
  return {format.scale_rows(m), format.scale_cols(k)};
}

}  // namespace compressed_tensors

namespace {

class CompressedTensors final : public Dialect {
 public:
  std::string name() const override { return "compressed-tensors"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    return recipe.keeps() ? "" : compressed_tensors::spell(recipe).refusal;
  }

  std::string obstacle(const QuantizedModule& module) const override {
    QuantizedModule in_order = module;
    in_order.reordered = false;
    if (const std::string why = Dialect::obstacle(in_order); !why.empty() || !module.reordered) return why;
    const compressed_tensors::Scheme scheme = compressed_tensors::scheme_of(module);
    const bool packed = compressed_tensors::storage_of(scheme.format) == compressed_tensors::Storage::words;
    return packed && scheme.weights.strategy == compressed_tensors::Strategy::group
               ? ""
               : "compressed-tensors has activation order for packed integers in groups only";
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    return compressed_tensors::layout(module);
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    return compressed_tensors::encode(module, weight);
  }

  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    return compressed_tensors::config(modules, kept);
  }

  std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules,
                                              std::span<const std::string>) const override {
    return compressed_tensors::metadata(modules);
  }

  bool recognizes(const Checkpoint& checkpoint) const override { return quant_method(checkpoint) == name(); }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    return compressed_tensors::modules(checkpoint);
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    return compressed_tensors::decode(checkpoint, module);
  }

  // Files of others have some of these where they say nothing: zero points that are zero, groups that are neighbours.
  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names = Dialect::sources(checkpoint, module);
    for (const char* part : {".weight_zero_point", ".weight_g_idx"})
      if (std::string name = module.name + part;
          checkpoint.find(name) && std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(std::move(name));
    return names;
  }
};

}  // namespace

const Dialect& compressed_tensors_dialect() {
  static const CompressedTensors dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
