// A Linear's weight as checkpoints and random sources give it, before a device takes it.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lowp/formats/recipe.h"
#include "lowp/kernels/cpu/gemm/packed.h"
#include "lowp/tensor/quantized.h"

namespace lowp::ops {

/// A weight as the CPU's kernels read it, and what its input is multiplied by first ([k], or empty).
struct PackedWeight {
  kernels::cpu::PackedMatrix matrix;
  std::vector<float> pre_scale;
};

struct LinearWeight {
  // Values [n, k] in f16, bf16 or f32, or quantized, or packed before.
  std::variant<TensorView, QuantizedMatrix, PackedWeight> weight;
  std::optional<formats::Recipe> recipe = {};  // of a quantized one
  std::optional<float> activation_scale = {};  // the multiplier of Scope::calibrated
  std::optional<TensorView> bias = {};         // [n]
  Tensor holder = {}, bias_holder = {};        // own values and bias where nothing else does
  // Where not empty: equal to all others of this name, of which only the first has more than its shape.
  std::string equal_to = {};

  const TensorView* values() const { return std::get_if<TensorView>(&weight); }
  const QuantizedMatrix* quantized() const { return std::get_if<QuantizedMatrix>(&weight); }
  const PackedWeight* packed() const { return std::get_if<PackedWeight>(&weight); }
  std::int64_t n() const { return values() ? values()->shape[0] : packed() ? packed()->matrix.n : quantized()->m; }
  std::int64_t k() const { return values() ? values()->shape[1] : packed() ? packed()->matrix.k : quantized()->k; }
};

/// The values in bf16: the view, or where it has another type what is rounded into `holder`.
inline TensorView as_bf16(const TensorView& view, Tensor& holder) {
  if (view.dtype == DType::bf16) return view;
  std::vector<float> values(static_cast<std::size_t>(element_count(view.shape)));
  load_f32(view, 0, element_count(view.shape), values.data());
  holder = Tensor(DType::bf16, view.shape);
  store_rounded(holder, 0, values);
  return holder.view();
}

}  // namespace lowp::ops
