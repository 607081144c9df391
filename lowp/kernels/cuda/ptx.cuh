// Thin wrappers: one instruction a function, no policy. Device code only.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

/// Two f32 to two e4m3 codes, saturating, ties to even; `low` in the low byte. NaN gives 0x7F.
__device__ __forceinline__ std::uint32_t cvt_e4m3x2(float low, float high) {
  std::uint16_t out;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(out) : "f"(high), "f"(low));
  return out;
}

/// Two f32 to two e5m2 codes, saturating, ties to even; `low` in the low byte. NaN gives 0x7F.
__device__ __forceinline__ std::uint32_t cvt_e5m2x2(float low, float high) {
  std::uint16_t out;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(out) : "f"(high), "f"(low));
  return out;
}

/// Lanewise max(|a|, |b|) of two bf16; NaN if either is. The sign is not meaningful.
__device__ __forceinline__ std::uint32_t max_abs_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

/// Lanewise max(|a|, |b|) of two f16; NaN if either is. The sign is not meaningful.
__device__ __forceinline__ std::uint32_t max_abs_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.NaN.xorsign.abs.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

/// Lanewise products, sums and differences of two bf16, rounded to nearest; subnormals are kept.
__device__ __forceinline__ std::uint32_t mul_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t add_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t sub_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

}  // namespace lowp::kernels::cuda::ptx
