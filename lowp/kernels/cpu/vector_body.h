// Sixteen floats at a time, in the vector types of the compiler: a narrower instruction set splits them, so every
// variant sums in the same order. Included into the namespace of each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lowp::kernels::cpu::LOWP_ISA {

typedef float Float16 __attribute__((vector_size(64)));
typedef std::int32_t Int16 __attribute__((vector_size(64)));
typedef std::uint32_t Uint16 __attribute__((vector_size(64)));

inline Float16 load16(const float* p) {
  Float16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store16(float* p, Float16 v) { std::memcpy(p, &v, sizeof v); }

// The first `count` < 16 of them; the others read as zero.
inline Float16 load_part(const float* p, std::int64_t count) {
  Float16 v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}
inline void store_part(float* p, Float16 v, std::int64_t count) {
  std::memcpy(p, &v, static_cast<std::size_t>(count) * sizeof(float));
}

inline float sum16(Float16 v) {
  float lanes[16];
  store16(lanes, v);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

// To the nearest bf16, ties to even; NaN stays.
inline Float16 round_bf16(Float16 v) {
  const Uint16 bits = (Uint16)v;
  const Uint16 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
  return v == v ? (Float16)rounded : v;
}
template <bool kBf16>
inline Float16 round16(Float16 v) {
  return kBf16 ? round_bf16(v) : v;
}

// e^x to about 1 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial for e^r (Cephes' expf). Below -87.3 it stays at
// e^-87.3, above 88.3 at e^88.3.
inline Float16 exp16(Float16 x) {
  const Float16 low = Float16{} - 87.3f, high = Float16{} + 88.3f;
  x = x < low ? low : x;  // NaN passes
  x = x > high ? high : x;
  const Float16 shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the integer nearest, in the low bits
  const Float16 n = shifted - 12582912.0f;
  Float16 r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Float16 p = Float16{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Uint16 power = ((Uint16)shifted << 23) + (127u << 23);
  return p * (Float16)power;
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
