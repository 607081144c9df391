// Kernels for few rows of gemm_packed_product.h that were compiled: a row for each pair of codes and scales.
//   <- ADD A DECODER HERE
#pragma once

#include <array>
#include <span>

#include "lowp/kernels/cuda/gemm_packed_product.h"

namespace lowp::kernels::cuda {

/// Shared memory that the kernel of one row, or of up to 8, has beside ring and rows, at most.
constexpr int gemv_declared(bool one) { return one ? 6 << 10 : 35 << 10; }

struct GemvPlan {
  int rounds = 0;                         // of the ring, 16 units each; below 2: x leaves no room
  int in_flight = 0;                      // of these
  std::array<int, kMostChained> teams{};  // warps of a team, by product
};

struct GemvKernels {
  Codes codes;
  Scales scales;
  using Launch = void (*)(std::span<const PackedProduct>, const GemvPlan&, const ProductMail&, StreamHandle);
  Launch one, few;  // 1 row, or up to 8
};

std::span<const GemvKernels> gemv_kernels_16bit();
std::span<const GemvKernels> gemv_kernels_8bit();
std::span<const GemvKernels> gemv_kernels_4bit();

}  // namespace lowp::kernels::cuda
