// The kernels of experts_product.h that were compiled: a row for each pair of codes and scales, as in
// gemm_packed_table.h.   <- ADD A DECODER HERE
#pragma once

#include <span>

#include "lowp/kernels/cuda/experts_product.h"

namespace lowp::kernels::cuda {

/// Shared memory that the kernel of few rows declares itself, at most.
inline constexpr int kExpertsDeclared = 7 << 10;

/// Of the products of few rows; those of other launches have no team.
struct ExpertsPlan {
  int stages = 0;                       // of a warp's ring; 0: there is no room
  int gate_up_team = 0, down_team = 0;  // warps
  int tables_at = 0;                    // in shared memory
  int shared_bytes = 0;
};

struct ExpertsKernels {
  Codes codes;
  Scales scales;
  using Few = void (*)(const FewExperts&, const ExpertsPlan&, StreamHandle);
  using Many = void (*)(const ExpertsProduct&, StreamHandle);
  Few few;  // of bf16 activations
  Many wide16, wide64, wide128;
};

std::span<const ExpertsKernels> experts_kernels_16bit();
std::span<const ExpertsKernels> experts_kernels_8bit();
std::span<const ExpertsKernels> experts_kernels_4bit();

}  // namespace lowp::kernels::cuda
