// y = x W^T + b under a recipe: the activation is really quantized, then multiplied with the weight's values.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "lowp/formats/recipe.h"
#include "lowp/tensor/quantized.h"

namespace lowp::ops {

/// A Linear's weight, decoded once for the multiplication.
class Linear {
 public:
  /// A high-precision weight [n, k] (f16, bf16, f32) and optional bias [n].
  Linear(const TensorView& weight, std::optional<TensorView> bias, formats::Elem compute);

  /// A quantized weight. Weight-only recipes multiply by the weight rounded to `compute`, as torchao's dequantize does;
  /// recipes with activations multiply exact values. `activation_scale`: the multiplier of Scope::calibrated.
  Linear(const QuantizedMatrix& weight, const formats::Recipe& recipe, std::optional<float> activation_scale,
         std::optional<TensorView> bias, formats::Elem compute);

  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }

  /// y [rows, n] = x [rows, k] W^T + b, rounded to the compute dtype; products are summed in f32 in an order that does
  /// not depend on `rows`. x holds values of the compute dtype.
  void run(std::span<const float> x, std::int64_t rows, std::span<float> y) const;

 private:
  void keep(std::vector<float> values);

  std::int64_t n_ = 0, k_ = 0;
  formats::Elem compute_;
  std::optional<formats::Activation> activation_;
  std::optional<float> activation_scale_;
  std::vector<float> weight_f32_;           // [n, k]; one of the two
  std::vector<std::uint16_t> weight_bf16_;  // [n, k], where every value is exact in bf16
  std::vector<float> bias_;
};

/// x [rows, k] onto the activation's grid: the values that quantizing and dequantizing leaves, in f32. Scope::token
/// takes row- and tensor-level scales from each row, Scope::tensor from all rows, Scope::calibrated from `calibrated`.
void fake_quantize(const formats::Activation& activation, formats::Elem compute, std::optional<float> calibrated,
                   std::span<const float> x, std::int64_t rows, std::int64_t k, std::span<float> out);

}  // namespace lowp::ops
