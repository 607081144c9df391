// From a quantized weight to the kernels' layout.
#pragma once

#include <optional>

#include "lowp/formats/recipe.h"
#include "lowp/kernels/cpu/gemm/packed.h"
#include "lowp/tensor/quantized.h"

namespace lowp::kernels::cpu {

/// What a weight is packed for.
struct Packing {
  Arithmetic arithmetic = Arithmetic::bf16;
  std::int64_t block = 0;    // values of k that share all scales on both sides; 0: the row
  bool zero_points = false;  // activations have zero points
};

/// How a weight [n, k] under a recipe is multiplied: integers and e2m1 against int8 or e2m1 activations in int8,
/// everything else in the kernels' arithmetic of bf16 operands. nullopt where no kernel holds the operands exactly or
/// the blocks do not fit the layout (groups that are neither 16 nor a multiple of 32; codebooks beside f32).
std::optional<Packing> packing_for(const formats::BlockFormat& weight, std::int64_t k,
                                   const std::optional<formats::Activation>& activation, formats::Elem compute,
                                   const GemmKernels& kernels);

/// Packs a quantized weight, on all threads. The weight's shape fits its format.
PackedMatrix pack(const QuantizedMatrix& weight, const Packing& packing);

/// Packs a bf16 weight [n, k].
PackedMatrix pack(const TensorView& weight, Arithmetic arithmetic);

}  // namespace lowp::kernels::cpu
