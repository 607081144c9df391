// The kernels of experts_product.h that were compiled: a row for each pair of codes and scales, as in
// gemm_packed_table.h.   <- ADD A DECODER HERE
#pragma once

#include <span>

#include "lowp/kernels/cuda/experts_product.h"

namespace lowp::kernels::cuda {

struct ExpertsPlan {
  int stages = 0;  // of a warp's ring; 0: there is no room
  int team = 16;   // warps
  int shared_bytes = 0;
};

struct ExpertsKernels {
  Codes codes;
  Scales scales;
  using Few = void (*)(const ExpertsProduct&, const ExpertChoice&, const ExpertsPlan&, StreamHandle);
  using Many = void (*)(const ExpertsProduct&, StreamHandle);
  Few gated, combined;  // of bf16 activations
  Many wide16, wide64, wide128;
};

std::span<const ExpertsKernels> experts_kernels_16bit();
std::span<const ExpertsKernels> experts_kernels_8bit();
std::span<const ExpertsKernels> experts_kernels_4bit();

}  // namespace lowp::kernels::cuda
