// The arithmetic of what stands in front of a cast, shared by the scalar reference and the GPU: plain multiplications
// and additions in a fixed order, so that both give the same bits. The formulas are those of kernels/cpu/elementwise.h.
#pragma once

#include <cstdint>

#include "lowp/formats/divide.h"

namespace lowp::kernels {

/// e^x to about 1 ulp, as kernels/cpu's exp16: x = n ln 2 + r and a polynomial for e^r (Cephes' expf). Below -87.3 it
/// stays at e^-87.3, above 88.3 at e^88.3.
LOWP_HD constexpr float exp_f32(float x) {
  x = x < -87.3f ? -87.3f : x;  // NaN passes
  x = x > 88.3f ? 88.3f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the integer nearest, in the low bits
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * bits_float((float_bits(shifted) << 23) + (127u << 23));
}

/// x / (1 + e^-x).
LOWP_HD constexpr float silu(float x) { return formats::divide(x, 1.0f + exp_f32(-x)); }

/// GELU in its tanh form, x / (1 + e^-2z), z = sqrt(2 / pi) (x + 0.044715 x^3).
LOWP_HD constexpr float gelu(float x) {
  return formats::divide(x, 1.0f + exp_f32(-(1.5957691216057308f * (x + 0.044715f * x * x * x))));
}

/// How many summands a row of `k` values is dealt to when its squares are added: chunk c of eight values goes to
/// summand c % norm_lanes(k), each adds its own in order, and they are folded in halves, first within 32 neighbours,
/// then the sums of those. A GPU's block of so many threads does that by itself.
LOWP_HD constexpr int norm_lanes(std::int64_t k) {
  const std::int64_t chunks = k / 8, each = chunks <= 1024 ? 4 : 8;
  return static_cast<int>(round_up<std::int64_t>(ceil_div(chunks, each), 32));
}

/// Longest row of a norm in front of a cast, in values.
inline constexpr std::int64_t kMostNorm = 32768;

}  // namespace lowp::kernels
