// What a product's weight is on a CUDA device, of one Linear or of all experts of a layer.
#pragma once

#include "lowp/formats/block.h"
#include "lowp/kernels/cuda/gemm_dense.h"
#include "lowp/kernels/cuda/gemm_packed.h"
#include "lowp/kernels/cuda/transfer.h"

namespace lowp::ops {

/// A second copy, for products of codes with codes by dense tiles.
struct CudaDenseWeight {
  kernels::cuda::Memory codes, scale, sum;  // sum: of rows, where activations have zero points
  bool scale_each = false;                  // a scale for each row or block; else one for all
  kernels::cuda::Sums sums = kernels::cuda::Sums::promoted;

  /// How codes of this format are summed.
  void use_sums_of(const formats::BlockFormat& format) {
    if (format.element == formats::Elem::int8)
      sums = kernels::cuda::Sums::integer;
    else if (format.group_cols != 0)
      sums = kernels::cuda::Sums::scaled;
  }

  CudaDenseWeight copy() const {
    return {kernels::cuda::copied(codes), kernels::cuda::copied(scale), kernels::cuda::copied(sum), scale_each, sums};
  }
};

/// Packed units and what belongs to them.
struct CudaPackedWeight {
  kernels::cuda::Codes codes = kernels::cuda::Codes::bf16;
  kernels::cuda::Scales scales = kernels::cuda::Scales::none;
  kernels::cuda::Memory units, row_scale, bias;

  /// Whether the operands are codes of 8 bits.
  bool of_bytes() const { return kernels::cuda::operand_bytes(codes) == 1; }

  CudaPackedWeight copy() const {
    return {codes, scales, kernels::cuda::copied(units), kernels::cuda::copied(row_scale), kernels::cuda::copied(bias)};
  }
};

}  // namespace lowp::ops
