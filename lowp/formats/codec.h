// Decode, encode and round, derived from an element format's row. Integer arithmetic only, so the result is the same on
// every compiler and device; exhaustively tested. Fast paths elsewhere are tested against these.
#pragma once

#include "lowp/formats/element.h"

namespace lowp::formats {

inline constexpr std::uint32_t kQuietNan = 0x7FC00000u;

/// The value of a code by the format's definition; decode() is the same and faster.
LOWP_HD constexpr float decode_by_definition(Elem e, std::uint32_t code) {
  const ElementFormat& f = info(e);
  if (!f.is_float()) {
    const auto value = static_cast<std::int32_t>(code & f.code_mask());
    const bool negative = f.is_signed && ((value >> (f.bits - 1)) & 1);
    return static_cast<float>(negative ? value - (1 << f.bits) : value);
  }
  if (f.bits == 32) return bits_float(code);
  const std::uint32_t mantissa_mask = (1u << f.mantissa_bits) - 1u;
  const std::uint32_t exponent_mask = (1u << f.exponent_bits) - 1u;
  const std::uint32_t magnitude = code & ((1u << (f.exponent_bits + f.mantissa_bits)) - 1u);
  const std::uint32_t exponent = (magnitude >> f.mantissa_bits) & exponent_mask;
  const std::uint32_t mantissa = magnitude & mantissa_mask;
  const std::uint32_t sign = f.is_signed ? ((code >> (f.bits - 1)) & 1u) << 31 : 0u;
  if (f.specials == Specials::ieee && exponent == exponent_mask)
    return bits_float(sign | 0x7F800000u | (mantissa << (23 - f.mantissa_bits)));
  if (f.specials == Specials::nan_only && exponent == exponent_mask && mantissa == mantissa_mask)
    return bits_float(sign | kQuietNan);
  // Value = significand * 2^scale with an integer significand; a format without mantissa bits (e8m0) has no zero and no
  // subnormals: its code 0 is 2^-bias.
  const bool subnormal = exponent == 0 && f.mantissa_bits > 0;
  const std::uint32_t significand = subnormal ? mantissa : mantissa | (1u << f.mantissa_bits);
  const int scale = static_cast<int>(subnormal ? 1u : exponent) - f.bias - f.mantissa_bits;
  // Normalise by hand: the value may be subnormal in f32 (e8m0, bf16).
  if (significand == 0) return bits_float(sign);
  int top = 31;
  while (!((significand >> top) & 1u)) --top;
  const int e32 = top + scale;
  if (e32 >= -126)
    return bits_float(sign | (static_cast<std::uint32_t>(e32 + 127) << 23) | ((significand << (23 - top)) & 0x7FFFFFu));
  return bits_float(sign | (significand << (scale + 149)));
}

/// Values of all codes of the elements of up to 8 bits.
inline constexpr auto kNarrowValues = [] {
  std::array<std::array<float, 256>, kElements.size()> values{};
  for (std::size_t e = 0; e < kElements.size(); ++e)
    for (std::uint32_t code = 0; code < 256 && kElements[e].bits <= 8; ++code)
      values[e][code] = decode_by_definition(static_cast<Elem>(e), code & kElements[e].code_mask());
  return values;
}();

/// The value of a code; exact for every format of the table (all are subsets of f32).
LOWP_HD constexpr float decode(Elem e, std::uint32_t code) {
#ifndef __CUDA_ARCH__  // device code cannot index a host constant
  if (info(e).bits <= 8) return kNarrowValues[static_cast<std::size_t>(e)][code & 0xFFu];
#endif
  return decode_by_definition(e, code);
}

/// The largest finite code without sign.
LOWP_HD constexpr std::uint32_t max_code(Elem e) {
  const ElementFormat& f = info(e);
  if (!f.is_float()) return f.is_signed ? f.code_mask() >> 1 : f.code_mask();
  const std::uint32_t all = (f.bits == 32 ? 0x7FFFFFFFu : (1u << (f.exponent_bits + f.mantissa_bits)) - 1u);
  if (f.specials == Specials::ieee) return all - (1u << f.mantissa_bits);
  return f.specials == Specials::nan_only ? all - 1u : all;
}

/// The largest finite value, e.g. 448 for e4m3, 127 for int8.
LOWP_HD constexpr float max_value(Elem e) { return decode(e, max_code(e)); }

/// The smallest value: -max for floats, -2^(bits-1) for signed integers, 0 for unsigned ones.
LOWP_HD constexpr float min_value(Elem e) {
  const ElementFormat& f = info(e);
  if (f.is_float()) return f.is_signed ? -max_value(e) : decode(e, 0);
  return f.is_signed ? -static_cast<float>(1 << (f.bits - 1)) : 0.0f;
}

/// floor(log2(max_value)): the exponent that MX block scales are aligned to (spec 1.1: 8 for e4m3).
LOWP_HD constexpr int max_exponent(Elem e) { return static_cast<int>((float_bits(max_value(e)) >> 23) & 0xFFu) - 127; }

/// What encode() does with finite values that round beyond max_value.
enum class Overflow : std::uint8_t { saturate, to_special };

/// Rounds x to the nearest code, ties to even. Out of range: the largest code (saturate, also for infinity) or
/// infinity/NaN where the format has one (to_special). NaN gives the format's NaN with x's sign; a format without NaN
/// gives the code that torchao's software cast leaves for it (torchao-spec 1.3 step 6). Integers clamp; a NaN gives 0.
LOWP_HD constexpr std::uint32_t encode(Elem e, float x, Overflow overflow = Overflow::saturate) {
  const ElementFormat& f = info(e);
  const std::uint32_t bits = float_bits(x);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (!f.is_float()) {
    if (magnitude > 0x7F800000u) return 0;
    const float low = min_value(e), high = max_value(e);
    float value = x < low ? low : x > high ? high : x;
    // Adding and removing 1.5 * 2^23 rounds half to even for |value| < 2^22.
    constexpr float kRound = 12582912.0f;
    value = (value + kRound) - kRound;
    return static_cast<std::uint32_t>(static_cast<std::int32_t>(value)) & f.code_mask();
  }
  if (f.bits == 32) return bits;
  const std::uint32_t sign = f.is_signed ? (bits >> 31) << (f.bits - 1) : 0u;
  const std::uint32_t top = (1u << (f.exponent_bits + f.mantissa_bits)) - 1u;  // all ones without sign
  const int drop = 23 - f.mantissa_bits;
  if (magnitude > 0x7F800000u) {
    // The NaN that torch's casts give: all ones in 8 bits, only the quiet bit in 16.
    if (f.specials == Specials::nan_only || (f.specials == Specials::ieee && f.bits == 8)) return sign | top;
    if (f.specials == Specials::ieee) return sign | (top - (1u << (f.mantissa_bits - 1)) + 1u);
    const std::uint32_t lsb = (magnitude >> drop) & 1u;
    const std::uint32_t rebased = magnitude - (static_cast<std::uint32_t>(127 - f.bias) << 23);
    return sign | (((rebased + (1u << (drop - 1)) - 1u + lsb) >> drop) & 0xFFu & top);
  }
  const std::uint32_t largest = max_code(e);
  std::uint32_t code = 0;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;  // of a normal f32; -127 for zero and subnormals
  const int lowest = 1 - f.bias;                                 // exponent of the smallest normal of the target
  if (magnitude == 0x7F800000u) {
    code = largest + 1u;
  } else if (f.mantissa_bits == 0) {  // e8m0: nearest power of two, ties to even code
    const std::uint32_t lsb = (magnitude >> 23) & 1u;
    code = magnitude < 0x800000u ? magnitude > 0x600000u : (magnitude + 0x3FFFFFu + lsb) >> 23;  // code 0 is 2^-127
  } else if (exponent >= lowest) {
    const std::uint32_t lsb = (magnitude >> drop) & 1u;
    const std::uint32_t rebased = magnitude - (static_cast<std::uint32_t>(127 - f.bias) << 23);
    code = (rebased + (1u << (drop - 1)) - 1u + lsb) >> drop;
  } else {
    // Subnormal target: count steps of 2^(lowest - mantissa_bits), rounding the shifted-out bits half to even.
    const std::uint32_t significand = exponent == -127 ? magnitude : (magnitude & 0x7FFFFFu) | 0x800000u;
    const int exponent_of_lsb = (exponent == -127 ? -126 : exponent) - 23;
    const int shift = (lowest - f.mantissa_bits) - exponent_of_lsb;
    if (shift <= 0) {
      code = significand << -shift;
    } else if (shift <= 24) {
      const std::uint32_t kept = significand >> shift;
      const std::uint32_t rest = significand & ((1u << shift) - 1u);
      const std::uint32_t half = 1u << (shift - 1);
      code = kept + (rest > half || (rest == half && (kept & 1u)) ? 1u : 0u);
    }
  }
  if (code > largest) {
    if (overflow == Overflow::saturate || f.specials == Specials::none)
      code = largest;
    else
      code = f.specials == Specials::ieee ? largest + 1u : top;
  }
  return sign | code;
}

/// encode() of a float of up to 8 bits with a mantissa, rounded up or down by chance: |x| goes to the next larger code
/// if the part of a step that it has beyond the next smaller one exceeds random * 2^-32 (cut to 24 bits). So the
/// expected value is x; values of the format, NaN and infinities come out as from encode(), and what is out of range
/// saturates.
LOWP_HD constexpr std::uint32_t encode_stochastic(Elem e, float x, std::uint32_t random) {
  const ElementFormat& f = info(e);
  const std::uint32_t magnitude = float_bits(x) & 0x7FFFFFFFu;
  if (magnitude >= 0x7F800000u) return encode(e, x);
  const int lowest = 1 - f.bias, own = static_cast<int>(magnitude >> 23) - 127;
  const int exponent = own < lowest ? lowest : own;
  // In steps of the last place, which is a power of two: exact.
  const float steps = bits_float(magnitude) * exp2i(f.mantissa_bits - exponent);
  const auto whole = static_cast<std::uint32_t>(steps);
  const bool up = static_cast<float>(random >> 8) * 0x1p-24f < steps - static_cast<float>(whole);
  const std::uint32_t code =
      (static_cast<std::uint32_t>(exponent - lowest) << f.mantissa_bits) + whole + (up ? 1u : 0u);
  const std::uint32_t largest = max_code(e);
  return (code < largest ? code : largest) | (float_bits(x) >> 31) << (f.bits - 1);
}

/// x rounded to a format: decode(encode(x)).
LOWP_HD constexpr float round_to(Elem e, float x) {
  if (e == Elem::f32) return x;
  if (e == Elem::bf16) {  // same result as the general path, on the hot path of every bf16 computation
    const std::uint32_t u = float_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return bits_float((u | 0x400000u) & 0xFFFF0000u);
    return bits_float((u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u);
  }
  return decode(e, encode(e, x, Overflow::to_special));
}

/// round(x), half to even, for any |x|.
LOWP_HD constexpr float round_half_even(float x) {
  constexpr float kRound = 8388608.0f;  // 2^23: above it every float is an integer
  if (!(x < kRound && x > -kRound)) return x;
  const float rounded = x < 0 ? (x - kRound) + kRound : (x + kRound) - kRound;
  return bits_float(float_bits(rounded) | (float_bits(x) & 0x80000000u));
}

/// round(x), half away from zero, for any |x|.
LOWP_HD constexpr float round_half_away(float x) {
  const float even = round_half_even(x);
  if (x > 0) return x - even == 0.5f ? even + 1 : even;
  return x - even == -0.5f ? even - 1 : even;
}

}  // namespace lowp::formats
