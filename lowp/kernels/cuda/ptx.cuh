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

/// Lanewise a * b + c of two bf16, rounded once; the second gives zero for what is negative.
__device__ __forceinline__ std::uint32_t fma_bf16x2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
}
__device__ __forceinline__ std::uint32_t fma_relu_bf16x2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t out;
  asm("fma.rn.relu.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
}

/// Lanewise products of two f16, rounded to nearest; subnormals are kept.
__device__ __forceinline__ std::uint32_t mul_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

/// Lanewise smallest and largest of two bf16 or f16.
__device__ __forceinline__ std::uint32_t min_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("min.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t max_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t min_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("min.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t max_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

/// Lanewise larger of two bf16 or f16; NaN if either is.
__device__ __forceinline__ std::uint32_t max_nan_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t max_nan_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

/// Two f32 to two bf16 or f16, rounded to nearest; `low` in the low half.
__device__ __forceinline__ std::uint32_t cvt_bf16x2(float low, float high) {
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
__device__ __forceinline__ std::uint32_t cvt_f16x2(float low, float high) {
  std::uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

/// Two e4m3 or e5m2 codes to two f16: exact.
__device__ __forceinline__ std::uint32_t cvt_f16x2_e4m3x2(std::uint16_t codes) {
  std::uint32_t out;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(codes));
  return out;
}
__device__ __forceinline__ std::uint32_t cvt_f16x2_e5m2x2(std::uint16_t codes) {
  std::uint32_t out;
  asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(out) : "h"(codes));
  return out;
}

/// Stores two bytes of device memory on a condition: as an instruction's own, where a branch or the copying of an
/// address would cost more than the store.
__device__ __forceinline__ void store_if(bool condition, void* to, std::uint16_t value) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %0, 0; @p st.global.u16 [%1], %2;}" ::"r"(static_cast<int>(condition)),
               "l"(to), "h"(value)
               : "memory");
}

/// A word of device memory, read before everything that follows.
__device__ __forceinline__ std::uint32_t load_acquire(const std::uint32_t* from) {
  std::uint32_t out;
  asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(out) : "l"(from) : "memory");
  return out;
}

/// 2^x and 1 / x by table and interpolation, to about 2 and 1 units in the last place. Subnormal operands and results
/// are zero: to keep them costs four more instructions.
__device__ __forceinline__ float ex2_approx(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
__device__ __forceinline__ float rcp_approx(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

}  // namespace lowp::kernels::cuda::ptx
