// Thin wrappers of what casts of rows use: one instruction a function, no policy. Device code only.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

/// Two f16 to two e4m3 codes, saturating, ties to even; the low half in the low byte.
__device__ __forceinline__ std::uint32_t cvt_e4m3x2_f16x2(std::uint32_t pair) {
  std::uint16_t out;
  asm("cvt.rn.satfinite.e4m3x2.f16x2 %0, %1;" : "=h"(out) : "r"(pair));
  return out;
}

}  // namespace lowp::kernels::cuda::ptx
