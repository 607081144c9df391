// Integer helpers and the host+device marker.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>

#ifdef __CUDACC__
#define LOWP_HD __host__ __device__
#else
#define LOWP_HD
#endif

namespace lowp {

/// ceil(a / b) for a >= 0, b > 0.
template <std::integral T>
LOWP_HD constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

/// The smallest multiple of b that is not below a.
template <std::integral T>
LOWP_HD constexpr T round_up(T a, T b) {
  return ceil_div(a, b) * b;
}

LOWP_HD constexpr std::uint32_t float_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
LOWP_HD constexpr float bits_float(std::uint32_t u) { return std::bit_cast<float>(u); }

/// NaN and infinity have an exponent field of all ones.
LOWP_HD constexpr bool is_finite(float x) { return (float_bits(x) & 0x7F800000u) != 0x7F800000u; }

/// 2^e as a float for -149 <= e <= 127.
LOWP_HD constexpr float exp2i(int e) {
  return e >= -126 ? bits_float(static_cast<std::uint32_t>(e + 127) << 23) : bits_float(1u << (e + 149));
}

}  // namespace lowp
