// IEEE division for code that runs on host and device. The compiler's division on a GPU calls a subroutine for unusual
// operands, and that call costs registers at every use; this one does not call anything.
#pragma once

#include "lowp/base/bits.h"

namespace lowp::formats {

/// a / b rounded to nearest, ties to even, in integer arithmetic: right for every operand, and slow. A NaN comes out
/// quiet and positive.
LOWP_HD constexpr float divide_by_bits(float a, float b) {
  const std::uint32_t sign = (float_bits(a) ^ float_bits(b)) & 0x80000000u;
  std::uint32_t x = float_bits(a) & 0x7FFFFFFFu, y = float_bits(b) & 0x7FFFFFFFu;
  constexpr std::uint32_t kInfinity = 0x7F800000u, kNan = 0x7FC00000u;
  if (x > kInfinity || y > kInfinity || (x == kInfinity && y == kInfinity) || (x == 0 && y == 0))
    return bits_float(kNan);
  if (x == kInfinity || y == 0) return bits_float(sign | kInfinity);
  if (x == 0 || y == kInfinity) return bits_float(sign);

  // Significands of 24 bits; subnormals are normalised.
  int exponent = 127;
  const auto significand = [](std::uint32_t bits, int& e) {
    e = static_cast<int>(bits >> 23);
    if (e != 0) return (bits & 0x7FFFFFu) | 0x800000u;
    for (e = 1; !(bits & 0x800000u); --e) bits <<= 1;
    return bits;
  };
  int ex = 0, ey = 0;
  x = significand(x, ex);
  y = significand(y, ey);
  exponent += ex - ey;
  if (x < y) {
    x <<= 1;
    --exponent;
  }
  std::uint32_t quotient = 0;  // 26 bits, the first is set
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
  for (int i = 0; i < 26; ++i) {
    const bool fits = x >= y;
    quotient = quotient << 1 | (fits ? 1u : 0u);
    x = (fits ? x - y : x) << 1;
  }
  if (exponent >= 255) return bits_float(sign | kInfinity);
  const int drop = exponent >= 1 ? 2 : 3 - exponent > 27 ? 27 : 3 - exponent;
  const std::uint32_t kept = quotient >> drop, rest = quotient & ((1u << drop) - 1u), half = 1u << (drop - 1);
  const bool up = rest > half || (rest == half && (x != 0 || (kept & 1u)));
  const std::uint32_t bits = kept + (up ? 1u : 0u);  // a carry reaches the exponent
  return bits_float(sign | (exponent >= 1 ? bits + (static_cast<std::uint32_t>(exponent - 1) << 23) : bits));
}

#ifdef __CUDA_ARCH__
// Approximation and two Newton steps: right unless the significand is all ones (Markstein), and then it is known.
__device__ inline float device_reciprocal(float b) {
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(b));
  y = __fmaf_rn(y, __fmaf_rn(-b, y, 1.0f), y);
  y = __fmaf_rn(y, __fmaf_rn(-b, y, 1.0f), y);
  const std::uint32_t bits = float_bits(b);
  return (bits & 0x7FFFFFu) == 0x7FFFFFu
             ? bits_float((bits & 0x80000000u) | (((253u << 23) - (bits & 0x7F800000u)) + 1u))
             : y;
}
__device__ inline float device_divide(float a, float b) {
  const std::uint32_t ea = (float_bits(a) >> 23) & 0xFFu, eb = (float_bits(b) >> 23) & 0xFFu;
  if (ea - 67u >= 120u || eb - 67u >= 120u) return divide_by_bits(a, b);
  // The quotient by the rounded reciprocal, corrected by its exact remainder, is the nearest (Markstein).
  const float y = device_reciprocal(b), q = a * y;
  return __fmaf_rn(__fmaf_rn(-b, q, a), y, q);
}
#endif

/// 1 / b, rounded to nearest, for 2^-120 <= |b| <= 2^120.
LOWP_HD constexpr float reciprocal(float b) {
#ifdef __CUDA_ARCH__
  return device_reciprocal(b);
#else
  return 1.0f / b;
#endif
}

/// a / b, rounded to nearest, ties to even.
LOWP_HD constexpr float divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return device_divide(a, b);
#else
  return a / b;
#endif
}

}  // namespace lowp::formats
