// y = x W^T + b under a recipe: the activation is really quantized, then multiplied with the weight's values.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "lowp/formats/recipe.h"
#include "lowp/kernels/cpu/gemm/packed.h"
#include "lowp/ops/linear_weight.h"
#include "lowp/tensor/quantized.h"

namespace lowp::ops {

/// Rows of activations, quantized once for all Linears that share them. Reusable: prepare() keeps its memory.
class Input {
 public:
  std::int64_t rows() const { return rows_; }

 private:
  friend class Linear;
  std::int64_t rows_ = 0;
  kernels::cpu::PackedRows packed_;
  std::vector<float> values_;  // [rows, k], for weights that are not packed
};

/// Finished values of some outputs: bias added, rounded to the compute dtype.
struct OutputTile {
  static constexpr std::int64_t kStride = kernels::cpu::kPanel;
  std::int64_t row = 0, rows = 0;
  std::int64_t column = 0, columns = 0;  // columns <= kStride
  float* values = nullptr;               // [rows, kStride]

  /// Values of row + r, and their place in a matrix with rows of `width`.
  float* row_at(std::int64_t r) const { return values + r * kStride; }
  std::int64_t place(std::int64_t r, std::int64_t width) const { return (row + r) * width + column; }
};

class Linear;

/// One or more Linears of equal n and k, and the input that they share.
struct Product {
  std::span<const Linear* const> linears;
  const Input* input;
};

/// A Linear's weight, packed once for the multiplication.
class Linear {
 public:
  /// A high-precision weight [n, k] (f16, bf16, f32) and optional bias [n].
  Linear(const TensorView& weight, std::optional<TensorView> bias, formats::Elem compute);

  /// A quantized weight. Products are of exact operands, elements times elements; scales multiply the sums of their
  /// groups. `activation_scale`: the multiplier of Scope::calibrated.
  Linear(const QuantizedMatrix& weight, const formats::Recipe& recipe, std::optional<float> activation_scale,
         std::optional<TensorView> bias, formats::Elem compute);

  /// A weight that was packed before: packed() and pre_scale() of a Linear of the same recipe, compute and CPU level.
  Linear(PackedWeight packed, const std::optional<formats::Recipe>& recipe, std::optional<float> activation_scale,
         std::optional<TensorView> bias, formats::Elem compute);

  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }
  /// The weight as kernels read it, or nullptr where it is kept as decoded values.
  const kernels::cpu::PackedMatrix* packed() const { return packed_ ? &*packed_ : nullptr; }
  /// [k] or empty: what the input is multiplied by before it is quantized.
  std::span<const float> pre_scale() const { return pre_scale_; }
  /// Bytes that the weight takes in memory.
  std::size_t memory() const;

  /// Whether an Input prepared by this Linear serves `other` too.
  bool shares_input(const Linear& other) const;

  /// Quantizes x [rows, k], values of the compute dtype.
  void prepare(std::span<const float> x, std::int64_t rows, Input& input) const;
  /// The same of rows that are made one by one, on any thread: `make` writes the values [k] of a row.
  using MakeRow = std::function<void(std::int64_t row, float* values)>;
  void prepare(const MakeRow& make, std::int64_t rows, Input& input) const;

  /// y [rows, n] = x [rows, k] W^T + b, rounded to the compute dtype. Sums run in f32 (int32 within a block of integer
  /// operands) in an order that does not depend on rows: a row's result is the same alone and in any batch.
  void run(std::span<const float> x, std::int64_t rows, std::span<float> y) const;

 private:
  friend void run_tiles(std::span<const Product> products,
                        const std::function<void(std::size_t product, std::span<const OutputTile>)>& done);
  friend void run_all(std::span<const Linear* const> linears, const Input& input,
                      std::span<const std::span<float>> outputs);
  template <typename RowAt>
  void quantize_rows(std::int64_t rows, const formats::GroupStats& call, const RowAt& row_at, Input& input) const;
  void keep_decoded(std::vector<float> values);
  std::int64_t tiles() const { return ceil_div(n_, OutputTile::kStride); }
  std::int64_t tile_bytes() const;
  // The tiles made[0 .. count) of the outputs from index * kStride on, in values [count, rows, kStride].
  void make_tiles(const Input& input, std::int64_t index, std::int64_t count, std::int64_t row, std::int64_t rows,
                  float* values, OutputTile* made) const;

  std::int64_t n_ = 0, k_ = 0;
  formats::Elem compute_;
  std::optional<formats::Activation> activation_;
  std::optional<float> activation_scale_;
  std::vector<float> pre_scale_;
  std::optional<kernels::cpu::PackedMatrix> packed_;
  // Where no packed kernel serves, and in the reference backend: the values, f32, or bf16 where that is exact.
  std::vector<float> weight_f32_;           // [n, k]
  std::vector<std::uint16_t> weight_bf16_;  // [n, k]
  std::vector<float> bias_;
};

/// The products of several Linears of equal n with inputs they share, tile by tile, all in one go over the threads:
/// `done` gets the number of a product and the tiles of its Linears for the same rows and columns at once, on any
/// thread, in any order. It may change the values: they are scratch.
void run_tiles(std::span<const Product> products,
               const std::function<void(std::size_t product, std::span<const OutputTile>)>& done);

/// The products of Linears that share an input, all in one go over the threads: outputs[i] is [rows, linears[i]->n()].
void run_all(std::span<const Linear* const> linears, const Input& input, std::span<const std::span<float>> outputs);

/// x [rows, k] onto the activation's grid: the values that quantizing and dequantizing leaves, in f32. Scope::token
/// takes row- and tensor-level scales from each row, Scope::tensor from all rows, Scope::calibrated from `calibrated`.
void fake_quantize(const formats::Activation& activation, formats::Elem compute, std::optional<float> calibrated,
                   std::span<const float> x, std::int64_t rows, std::int64_t k, std::span<float> out);

}  // namespace lowp::ops
