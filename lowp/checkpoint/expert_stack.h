// Experts that a layer stacks in one tensor, "<block>experts.gate_up_proj" and "<block>experts.down_proj", seen as the
// matrices of modules "<block>experts.E.gate_proj", "up_proj" and "down_proj".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/tensor/tensor.h"

namespace lowp::checkpoint {

/// What stands between a block and the number of an expert in the names of modules.
inline constexpr std::string_view kExperts = ".experts.";

/// A module's name taken apart: "model.layers.3.mlp.experts.7.up_proj" is expert 7, "up_proj" of
/// "model.layers.3.mlp.experts.".
struct ExpertModule {
  std::string block;
  std::int64_t expert = 0;
  std::string part;
};
/// nullopt for other names.
std::optional<ExpertModule> parse_expert(std::string_view module);

/// How the matrices of an expert lie in a stack.
///   rows     [experts, out, in]: gate's rows, then up's (Qwen3-MoE, Llama's order)
///   columns  [experts, in, out]: gate and up in alternate columns, and in alternate biases (gpt-oss;
///            checkpoint-formats 4.3)
/// Whether config.json says the second.
bool stacks_columns(const Checkpoint& checkpoint);

/// A matrix [n, k] in a stored tensor: element (i, j) is the tensor's element first + i * row + j * column.
struct MatrixSlice {
  const StoredTensor* tensor = nullptr;
  std::int64_t n = 0, k = 0;
  std::int64_t first = 0, row = 0, column = 1;

  bool contiguous() const { return column == 1 && row == k; }
  /// The values as the file has them, or gathered into `holder`.
  TensorView load(Tensor& holder) const;
};

/// The matrix of `module` in a stack [experts, ..., ...].
struct StackedMatrix {
  std::string module;
  MatrixSlice slice;
};
/// All of a stack whose name ends in "gate_up_proj" or "down_proj", expert by expert, gate before up.
std::vector<StackedMatrix> stacked_matrices(const StoredTensor& stack, bool columns);

/// The matrix of a module that is in a stack; nullopt if there is none. Throws Error(bad_input) where the stack is not
/// of three dimensions in F16, BF16 or F32.
std::optional<MatrixSlice> find_stacked(const Checkpoint& checkpoint, const std::string& module);

/// The bias [n] of such a module, as a matrix [n, 1]: in "<block>experts.gate_up_proj_bias" [experts, 2 n] or
/// "down_proj_bias" [experts, n], whatever the weights are stored as. nullopt if there is none; throws Error(bad_input)
/// for another shape or type.
std::optional<MatrixSlice> find_stacked_bias(const Checkpoint& checkpoint, const std::string& module, std::int64_t n);

}  // namespace lowp::checkpoint
