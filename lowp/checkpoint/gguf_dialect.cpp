// Quantized weights in GGUF: blocks of ggml's types (checkpoint-formats 8).
#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/gguf_blocks.h"
#include "lowp/checkpoint/gguf_write.h"

namespace lowp::checkpoint {
namespace {

using formats::Recipe;

constexpr std::string_view kScale = ".scale";

class GgufDialect final : public Dialect {
 public:
  std::string name() const override { return "gguf"; }

  std::string refusal(const Recipe& recipe) const override {
    if (recipe.activation) return "GGUF says nothing about activations";
    const BlockType* type = block_type_of(recipe.weight);
    if (!type) return fmt::format("no ggml type has the values of {}", recipe.weight.name);
    return type->writable ? "" : fmt::format("lowp does not write {}", type->ggml);
  }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    const BlockType* type = block_type_of(module.recipe.weight);
    LOWP_CHECK(type, "{}: no ggml type for {}", module.name, module.recipe.name);
    const GgmlType& ggml = *find_ggml_type(type->ggml);
    TensorEntry entry{module.name + std::string(kWeight), DType::u8, {module.m, module.k / ggml.values * ggml.bytes}};
    entry.blocks = ggml.name;
    std::vector<TensorEntry> entries = {entry};
    if (module.recipe.weight.tensor_scale) entries.push_back({module.name + std::string(kScale), DType::f32, {1}});
    return entries;
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    std::vector<Tensor> tensors;
    tensors.push_back(pack_blocks(*block_type_of(module.recipe.weight), weight, module.name));
    if (module.recipe.weight.tensor_scale) tensors.push_back(one_f32(weight.tensor_scale));
    return tensors;
  }

  Json config(std::span<const QuantizedModule>, std::span<const std::string>) const override { return nullptr; }
  bool is_file() const override { return true; }
  void check_output(const std::string& path, bool overwrite) const override { check_gguf_name(path, overwrite); }
  FileReport write_file(const Checkpoint& checkpoint, const std::string& path,
                        const std::function<void(std::uint64_t, std::uint64_t)>& progress) const override {
    return write_gguf(checkpoint, path, progress);
  }

  bool recognizes(const Checkpoint& checkpoint) const override { return checkpoint.gguf() != nullptr; }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    std::vector<QuantizedModule> modules;
    for (const StoredTensor& stored : checkpoint.tensors()) {
      const TensorEntry& entry = stored.entry;
      if (entry.blocks.empty()) continue;
      const BlockType* type = find_block_type(entry.blocks);
      if (!type || !entry.name.ends_with(kWeight))
        fail(ErrorCode::bad_input, "{}: tensor {} should not be {}", stored.file->path(), quote(entry.name),
             entry.blocks);
      const GgmlType& ggml = *find_ggml_type(entry.blocks);
      QuantizedModule module;
      module.name = entry.name.substr(0, entry.name.size() - kWeight.size());
      module.m = entry.shape[0];
      module.k = entry.shape[1] / ggml.bytes * ggml.values;
      module.input = type->input;
      std::string format(type->format);
      // Without a scale for the whole tensor, which is the case of 1, nvfp4 is of one level.
      if (entry.blocks == "NVFP4" && !checkpoint.find(module.name + std::string(kScale))) format = "nvfp4_single";
      module.recipe = formats::Recipe{format + "-bf16", formats::block_format(format), std::nullopt};
      modules.push_back(std::move(module));
    }
    return modules;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    const StoredTensor* stored = checkpoint.find(module.name + std::string(kWeight));
    LOWP_CHECK(stored && !stored->entry.blocks.empty(), "{} is not a module of this file", module.name);
    QuantizedMatrix matrix = unpack_blocks(*find_block_type(stored->entry.blocks), stored->view(), module.k,
                                           fmt::format("{}: {}", stored->file->path(), quote(stored->entry.name)));
    matrix.format = module.recipe.weight;
    if (matrix.format.tensor_scale) matrix.tensor_scale = required_one(checkpoint, module.name + std::string(kScale));
    return matrix;
  }
};

}  // namespace

const Dialect& gguf_dialect() {
  static const GgufDialect dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
