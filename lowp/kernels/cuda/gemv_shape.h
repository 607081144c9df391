// Numbers that the kernels for few rows and those who plan their shared memory must agree on.
#pragma once

#include "lowp/base/bits.h"

namespace lowp::kernels::cuda {

inline constexpr int kGemvWarps = 16;      // of a block, that multiply
inline constexpr int kGemvMostRounds = 8;  // of gemv's ring
inline constexpr int kExpertsStages = 4;   // of a warp's ring of experts_gemv.cuh, at most

/// Values of x between the beginnings of two rows in shared memory: the padding keeps the rows on different banks.
template <typename Int>
LOWP_HD constexpr Int gemv_row_stride(Int padded_k, Int columns) {
  return columns == 1 ? padded_k : padded_k + 32;
}

}  // namespace lowp::kernels::cuda
