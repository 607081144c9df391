// Wide tiles of gemm_packed_product.h that were compiled: a row for each pair of codes and scales, as in gemv_table.h.
//   <- ADD A DECODER THERE AND HERE
#pragma once

#include <span>

#include "lowp/kernels/cuda/gemm_packed_product.h"

namespace lowp::kernels::cuda {

struct PackedKernels {
  Codes codes;
  Scales scales;
  using Wide = void (*)(const PackedProduct&, int splits, StreamHandle);
  Wide wide16, wide64, wide128, wide256;
};

std::span<const PackedKernels> packed_kernels_16bit();
std::span<const PackedKernels> packed_kernels_8bit();
std::span<const PackedKernels> packed_kernels_4bit();

}  // namespace lowp::kernels::cuda
