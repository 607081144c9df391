// Fast encoders for the GPU: the results of formats/codec.h and formats/quantize.h in a few instructions. Plain C++ but
// for the hardware's own 8-bit converts, so that the host tests them exhaustively against formats/
// (fast_codec_test.cpp).
#pragma once

#include <algorithm>
#include <cmath>

#include "lowp/formats/quantize.h"

#ifdef __CUDA_ARCH__
#include "lowp/kernels/cuda/ptx.cuh"
#endif

namespace lowp::kernels::cuda {

using formats::BlockSpec;
using formats::Elem;
using formats::Rule;
using formats::Scaling;

/// Floats of fewer than 8 bits: no hardware convert before sm_100.
LOWP_HD constexpr bool is_narrow_float(Elem e) { return formats::info(e).is_float() && formats::info(e).bits < 8; }

/// Rounds |y| to E's places, ties to even, as if E had all larger exponents. Infinity gives NaN.
///
/// Adding 1.5 * 2^(23 - mantissa_bits + exponent of y) makes the f32 adder round at E's last place; a subnormal of E
/// has the step of its smallest normal.
template <Elem E>
LOWP_HD constexpr float round_to_step(float y) {
  constexpr int mantissa = formats::info(E).mantissa_bits, lowest = 1 - formats::info(E).bias;
  const std::uint32_t exponent = float_bits(y) & 0x7F800000u;
  constexpr std::uint32_t floor = float_bits(exp2i(lowest));
  const float step_up = bits_float(exponent > floor ? exponent : floor) * (1.5f * exp2i(23 - mantissa));
  return (__builtin_fabsf(y) + step_up) - step_up;
}

/// Code of y in a narrow float format, saturating: formats::encode for one value (y not NaN).
template <Elem E>
LOWP_HD constexpr std::uint32_t encode_narrow(float y) {
  constexpr int mantissa = formats::info(E).mantissa_bits, lowest = 1 - formats::info(E).bias;
  // The product moves E's grid onto f32's, subnormals included: the magnitude code stands above zeros.
  const std::uint32_t code = float_bits(round_to_step<E>(y) * exp2i(-126 - lowest)) >> (23 - mantissa);
  constexpr std::uint32_t largest = formats::max_code(E);
  return (code < largest ? code : largest) | ((float_bits(y) >> 31) << (formats::info(E).bits - 1));
}

namespace detail {
// Four of the eight bytes of a and b (0 to 3, 4 to 7), chosen by the hexadecimal digits of `which`, the last one first.
LOWP_HD inline std::uint32_t bytes(std::uint32_t a, std::uint32_t b, std::uint32_t which) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, which);
#else
  const std::uint64_t both = a | static_cast<std::uint64_t>(b) << 32;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<std::uint32_t>(both >> (8 * (which >> (4 * i) & 7u)) & 0xFFu) << 8 * i;
  return out;
#endif
}
// High and low halves of two words: a's below, b's above.
LOWP_HD inline std::uint32_t high_halves(std::uint32_t a, std::uint32_t b) { return bytes(a, b, 0x7632); }
LOWP_HD inline std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) { return bytes(a, b, 0x5410); }
// The first byte of each of four words, in order.
LOWP_HD inline std::uint32_t low_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return bytes(bytes(a, b, 0x0040), bytes(c, d, 0x0040), 0x5410);
}
LOWP_HD inline std::uint32_t smallest(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#ifdef __CUDA_ARCH__
  return __vimin3_u32(a, b, c);
#else
  return std::min({a, b, c});
#endif
}
LOWP_HD inline std::uint32_t smallest_halves(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#ifdef __CUDA_ARCH__
  return __vimin3_u16x2(a, b, c);
#else
  return std::min({a & 0xFFFFu, b & 0xFFFFu, c & 0xFFFFu}) | std::min({a >> 16, b >> 16, c >> 16}) << 16;
#endif
}
// Of signed halves.
LOWP_HD inline std::uint32_t clamp_halves(std::uint32_t x, std::uint32_t low, std::uint32_t high) {
#ifdef __CUDA_ARCH__
  return __vmins2(__vmaxs2(x, low), high);
#else
  const auto one = [](std::uint32_t value, std::uint32_t least, std::uint32_t most) {
    const auto as_signed = [](std::uint32_t half) { return static_cast<std::int16_t>(half & 0xFFFFu); };
    return static_cast<std::uint16_t>(std::min(std::max(as_signed(value), as_signed(least)), as_signed(most)));
  };
  return one(x, low, high) | static_cast<std::uint32_t>(one(x >> 16, low >> 16, high >> 16)) << 16;
#endif
}
// Arithmetic on two bf16, rounded to nearest; the last gives zero for what is negative.
#ifdef __CUDA_ARCH__
__device__ inline std::uint32_t mul_pairs(std::uint32_t a, std::uint32_t b) { return ptx::mul_bf16x2(a, b); }
__device__ inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b) { return ptx::add_bf16x2(a, b); }
__device__ inline std::uint32_t sub_pairs(std::uint32_t a, std::uint32_t b) { return ptx::sub_bf16x2(a, b); }
__device__ inline std::uint32_t fma_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return ptx::fma_bf16x2(a, b, c);
}
__device__ inline std::uint32_t fma_relu_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return ptx::fma_relu_bf16x2(a, b, c);
}
#else
template <class Operation>
std::uint32_t by_halves(std::uint32_t a, std::uint32_t b, std::uint32_t c, const Operation& operation) {
  // Results of f64 are so close to exact that rounding there first changes nothing for the operands that come here.
  const auto one = [&](std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    const double exact = operation(double{bits_float(x)}, double{bits_float(y)}, double{bits_float(z)});
    return float_bits(formats::round_to(Elem::bf16, static_cast<float>(exact))) >> 16;
  };
  return one(a << 16, b << 16, c << 16) | one(a & 0xFFFF0000u, b & 0xFFFF0000u, c & 0xFFFF0000u) << 16;
}
inline std::uint32_t mul_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, 0, [](double x, double y, double) { return x * y; });
}
inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, 0, [](double x, double y, double) { return x + y; });
}
inline std::uint32_t sub_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, 0, [](double x, double y, double) { return x - y; });
}
inline std::uint32_t fma_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return by_halves(a, b, c, [](double x, double y, double z) { return x * y + z; });
}
inline std::uint32_t fma_relu_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return by_halves(a, b, c, [](double x, double y, double z) { return x * y + z > 0 ? x * y + z : 0; });
}
#endif
}  // namespace detail

LOWP_HD inline float fused_multiply_add(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

/// x within [low, high]; NaN gives low.
LOWP_HD inline float clamp(float x, float low, float high) {
#ifdef __CUDA_ARCH__
  return fminf(fmaxf(x, low), high);
#else
  return std::fmin(std::fmax(x, low), high);
#endif
}

/// x within [0, 1]; NaN gives 0.
LOWP_HD inline float saturate(float x) {
#ifdef __CUDA_ARCH__
  return __saturatef(x);
#else
  return clamp(x, 0, 1);
#endif
}

/// Codes of eight values, one a byte: formats::encode(E, y[i]). NaN gives the code without sign (e4m3 and e5m2 0x7F).
template <Elem E>
LOWP_HD inline std::uint64_t encode8_bytes(const float (&y)[8]) {
  std::uint32_t word[2];
#ifdef __CUDA_ARCH__
  if constexpr (E == Elem::e4m3 || E == Elem::e5m2) {
    constexpr bool e4m3 = E == Elem::e4m3;
    for (int w = 0; w < 2; ++w) {
      const float* v = y + 4 * w;
      const std::uint32_t low = e4m3 ? ptx::cvt_e4m3x2(v[0], v[1]) : ptx::cvt_e5m2x2(v[0], v[1]);
      const std::uint32_t high = e4m3 ? ptx::cvt_e4m3x2(v[2], v[3]) : ptx::cvt_e5m2x2(v[2], v[3]);
      word[w] = low | high << 16;
    }
  } else
#endif
  {
    for (int w = 0; w < 2; ++w) {
      std::uint32_t code[4];
      for (int i = 0; i < 4; ++i) {
        if constexpr (is_narrow_float(E))
          code[i] = encode_narrow<E>(y[4 * w + i]);
        else
          code[i] = formats::encode(E, y[4 * w + i]);
      }
      word[w] = detail::low_bytes(code[0], code[1], code[2], code[3]);
    }
  }
  return word[0] | static_cast<std::uint64_t>(word[1]) << 32;
}

// E2M1's magnitudes 0, 1/2, 1, 3/2, 2, 3, 4, 6 have the codes 0 to 7, so that on them the code is 2y up to 2, y + 2
// from there to 4 and y / 2 + 4 beyond: the smallest of the three, and the code of any y is the integer nearest to
// that, ties to even. The adder rounds each of them where it is added to 1.5 * 2^23 (in bf16 to 1.5 * 2^7), whose last
// place is 1.

/// The f32 bits of 1.5 * 2^23 + the magnitude code in E2M1 of y, which is not negative (nor NaN).
inline constexpr std::uint32_t kCodeBase = 0x4B400000u;
LOWP_HD inline std::uint32_t e2m1_above_base(float y) {
  constexpr float base = 12582912.0f;
  const float last = saturate(fused_multiply_add(y, 0.5f, -2.0f));  // beyond 6 no more than at 6
  return detail::smallest(float_bits(fused_multiply_add(y, 2.0f, base)), float_bits(y + (base + 2.0f)),
                          float_bits(last + (base + 6.0f)));
}

/// The same for two bf16, in each half the bits of the bf16 192 + code.
inline constexpr std::uint32_t kPairBase = 0x43404340u;
LOWP_HD inline std::uint32_t e2m1_pair_above_base(std::uint32_t y) {
  const std::uint32_t missing = detail::fma_relu_pairs(y, 0xBF00BF00u, 0x40404040u);  // 3 - y / 2, of the code 7
  return detail::smallest_halves(detail::fma_pairs(y, 0x40004000u, kPairBase), detail::add_pairs(y, 0x43424342u),
                                 detail::sub_pairs(0x43474347u, missing));
}

/// The signs of eight values as E2M1 codes have them, from the top bits of the halves of four words.
LOWP_HD inline std::uint32_t e2m1_signs(const std::uint32_t (&word)[4]) {
  const std::uint32_t a = detail::bytes(word[0], word[1], 0x7351), b = detail::bytes(word[2], word[3], 0x7351);
  return (detail::low_halves(a, b) >> 4 & 0x08080808u) | (detail::high_halves(a, b) & 0x80808080u);
}

/// E2M1 codes of eight values, the first in the lowest bits: formats::encode(Elem::e2m1, x), from their magnitudes y
/// and the top bits of the halves of `sign`.
LOWP_HD inline std::uint32_t encode8_e2m1(const float (&y)[8], const std::uint32_t (&sign)[4]) {
  std::uint32_t codes = 0;
  for (int i = 7; i >= 0; --i) codes = codes * 16 + e2m1_above_base(y[i]);
  return (codes - kCodeBase * 0x11111111u) | e2m1_signs(sign);
}

/// E2M1 codes of eight bf16 times a power of two, as encode8_e2m1. `multiplier`: bf16, the same in both halves.
LOWP_HD inline std::uint32_t encode8_pairs(const std::uint32_t (&word)[4], std::uint32_t multiplier) {
  std::uint32_t code[4];
  for (int i = 0; i < 4; ++i) code[i] = e2m1_pair_above_base(detail::mul_pairs(word[i] & 0x7FFF7FFFu, multiplier));
  const std::uint32_t a = code[1] * 256 + code[0], b = code[3] * 256 + code[2];
  constexpr std::uint32_t kTwo = kPairBase * 257u;  // of which a and b have, as much above
  const std::uint32_t codes = detail::high_halves(a, b) * 16 + detail::low_halves(a, b);
  return (codes - ((kTwo >> 16) * 0x00010001u * 16 + (kTwo & 0xFFFFu) * 0x00010001u)) | e2m1_signs(word);
}

/// The same for two columns: word r holds row r of both; multiplier: of the columns. `magnitude`: 0x7FFF in the halves
/// of columns, or 0 for one that is to be read as zeros: a NaN would spoil the other column's codes.
LOWP_HD inline void encode8_column_pairs(const std::uint32_t (&word)[8], std::uint32_t multiplier,
                                         std::uint32_t magnitude, std::uint32_t (&out)[2]) {
  std::uint32_t half[2];
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t* four = word + 4 * i;
    std::uint32_t codes = 0;
    for (int j = 3; j >= 0; --j)
      codes = codes * 16 + e2m1_pair_above_base(detail::mul_pairs(four[j] & magnitude, multiplier));
    const std::uint32_t low = (four[0] >> 12 & 0x000F000Fu) | (four[1] >> 8 & 0xFFF0FFF0u),
                        high = (four[2] >> 4 & 0x0FFF0FFFu) | (four[3] & 0xF000F000u);
    const std::uint32_t signs = (low & 0x00FF00FFu) | (high & 0xFF00FF00u);
    half[i] = (codes - kPairBase * 0x1111u) | (signs & 0x88888888u);
  }
  out[0] = detail::low_halves(half[0], half[1]);
  out[1] = detail::high_halves(half[0], half[1]);
}

/// What rounds an exponent under a scaling mode: the exponent of amax_bits + mx_bump is that of the rounded amax.
constexpr std::uint32_t mx_bump(Elem e, Scaling scaling) {
  switch (scaling) {
    case Scaling::floor:
      return 0;
    case Scaling::ceil:
      return 0x7FFFFFu;
    case Scaling::even:
      return 1u << (22 - formats::info(e).mantissa_bits);
    case Scaling::rceil:
      return 0x7FFFFFu - (float_bits(formats::max_value(e)) & 0x7FFFFFu);
  }
  return 0;
}

/// The E8M0 scale byte of an MX block of E: formats::mx_scale_code, 255 for a block with NaN or infinity. `amax_bits`:
/// f32 bits of the largest magnitude, `bump`: of the mode.
///
/// f16 and bf16 have so few bits that amax / max is never within rounding of a power of two without being one, so rceil
/// too is a matter of comparing significands; f32 takes the oracle's way.
template <Elem E, Elem Input>
LOWP_HD constexpr std::uint32_t fast_mx_scale_code(Scaling scaling, std::uint32_t bump, std::uint32_t amax_bits) {
  if (amax_bits >= 0x7F800000u) return 255;
  if (Input == Elem::f32 && scaling == Scaling::rceil)
    return formats::mx_scale_code(E, Scaling::rceil, bits_float(amax_bits));
  const int exponent = static_cast<int>((amax_bits + bump) >> 23) - formats::max_exponent(E);
  return static_cast<std::uint32_t>(exponent < 0 ? 0 : exponent);
}

/// What an MX block is multiplied by before rounding, from its scale byte: formats::choose_params' multiplier; NaN for
/// a block with NaN or infinity.
LOWP_HD constexpr float mx_multiplier(Scaling scaling, std::uint32_t scale_code) {
  if (scale_code >= 254) return bits_float(scale_code == 254 ? 0x00400000u : formats::kQuietNan);
  if (scale_code == 0) return scaling == Scaling::rceil ? 1.0f : exp2i(126);
  return bits_float((254u - scale_code) << 23);
}

/// E4M3 code of a value in [2^-6, 448], and the value of the code of a normal E4M3.
LOWP_HD inline std::uint32_t encode_normal_e4m3(float x) {
#ifdef __CUDA_ARCH__
  return ptx::cvt_e4m3x2(x, 0.0f) & 0xFFu;
#else
  return formats::encode(Elem::e4m3, x);
#endif
}
LOWP_HD constexpr float decode_normal_e4m3(std::uint32_t code) { return bits_float((code << 20) + (120u << 23)); }

/// x / divisor for |x| <= 2^10 * divisor, without a division: the quotient by the rounded reciprocal, corrected by its
/// exact remainder (Markstein), is the nearest f32, as long as no intermediate is subnormal: for divisors of 2^-80 to
/// 2^100, except for quotients so small that no 8-bit format tells them from zero. Keeps the sign of zero.
LOWP_HD inline float quick_quotient(float x, float divisor, float reciprocal) {
  const float q = x * reciprocal;
  const float excess = fused_multiply_add(divisor, q, -x);
  return fused_multiply_add(-excess, reciprocal, q);
}
LOWP_HD constexpr bool is_usual(float divisor) { return divisor >= 0x1p-80f && divisor <= 0x1p100f; }

/// A scale as quick_quotient wants it: multiplied, like the values, by a power of two. A scale of 0, from values too
/// small for it, divides everything but zero beyond any format's largest value.
struct Divisor {
  float scale, reciprocal, lift;
};
LOWP_HD inline Divisor make_divisor(float scale) {
  if (scale == 0) return {0x1p-59f, 0x1p59f, 0x1p100f};
  const float lift = scale < 0x1p-60f ? 0x1p100f : scale > 0x1p60f ? 0x1p-60f : 1.0f;
  return {scale * lift, formats::reciprocal(scale * lift), lift};
}
/// x / scale; |x| <= 2^10 * scale.
LOWP_HD inline float quotient(float x, const Divisor& d) { return quick_quotient(x * d.lift, d.scale, d.reciprocal); }
/// x / scale for any x: what is beyond 2^10 comes out as 2^10.
LOWP_HD inline float limited_quotient(float x, const Divisor& d) {
  const float most = 1024.0f * d.scale;
  return quick_quotient(clamp(x * d.lift, -most, most), d.scale, d.reciprocal);
}

/// 1 / scale in two parts, the first of 16 bits: for quotients of bf16, whose products with it are exact.
struct SplitReciprocal {
  float high, low;
};
LOWP_HD inline SplitReciprocal split_reciprocal(const Divisor& d) {
  const float high = bits_float(float_bits(d.reciprocal) & 0xFFFFFF00u);
  return {high, fused_multiply_add(-d.scale, high, 1.0f) * d.reciprocal};
}
/// x / scale of a bf16 x and a bf16 scale that was not lifted, to 2^-24 and exact where it is a number of few bits. A
/// quotient of two numbers of 8 bits is either the middle of two e4m3 or further than 2^-14 from it, so that this
/// gives the code of the quotient.
LOWP_HD inline float short_quotient(float x, const SplitReciprocal& r) {
  return fused_multiply_add(x, r.low, x * r.high);
}

/// 1 / scale for a normal E4M3 scale: one Newton step is enough for its 4 significant bits.
LOWP_HD inline float reciprocal_of_e4m3(float scale) {
#ifdef __CUDA_ARCH__
  const float y = ptx::rcp_approx(scale);
  return __fmaf_rn(y, __fmaf_rn(-scale, y, 1.0f), y);
#else
  return 1.0f / scale;
#endif
}

/// Scale byte and multiplier of an NVFP4 block (formats::choose_params) without divisions. Where the corrected
/// quotients are inexact, the smallest scale 2^-6 replaces them.
struct Nvfp4Scale {
  std::uint32_t code;
  float multiplier;
};
LOWP_HD inline Nvfp4Scale quick_nvfp4_scale(float amax) {
  const std::uint32_t code = encode_normal_e4m3(clamp(quick_quotient(amax, 6.0f, 1.0f / 6.0f), 0x1p-6f, 448.0f));
  return {code, reciprocal_of_e4m3(decode_normal_e4m3(code))};
}
/// The same with a tensor scale that is_usual(), and its rounded reciprocal.
LOWP_HD inline Nvfp4Scale quick_nvfp4_scale(float amax, float tensor_scale, float reciprocal) {
  const float ratio = quick_quotient(quick_quotient(amax, 6.0f, 1.0f / 6.0f), tensor_scale, reciprocal);
  const std::uint32_t code = encode_normal_e4m3(clamp(ratio, 0x1p-6f, 448.0f));
  const float scale = decode_normal_e4m3(code);
  return {code, quick_quotient(reciprocal, scale, reciprocal_of_e4m3(scale))};
}

/// 1.5 * 2^23: added to a number of less than 2^22, it makes the adder round to an integer, half to even, whose two's
/// complement is in the low bits.
inline constexpr float kRoundToInteger = 12582912.0f;

/// Rounds to an integer within [low, high]: formats::encode of an integer element, as a signed byte.
LOWP_HD inline std::uint32_t encode_integer(float q, float low, float high) {
  return float_bits(clamp(q, low, high) + kRoundToInteger) & 0xFFu;
}

/// The same of eight integers of 16 bits, each above kRoundToInteger.
LOWP_HD inline std::uint64_t encode8_integers(const float (&sum)[8], float low, float high) {
  const std::uint32_t least = detail::low_halves(float_bits(low + kRoundToInteger), float_bits(low + kRoundToInteger)),
                      most = detail::low_halves(float_bits(high + kRoundToInteger), float_bits(high + kRoundToInteger));
  std::uint32_t pair[4];
  for (int i = 0; i < 4; ++i)
    pair[i] = detail::clamp_halves(detail::low_halves(float_bits(sum[2 * i]), float_bits(sum[2 * i + 1])), least, most);
  return detail::bytes(pair[0], pair[1], 0x6420) | static_cast<std::uint64_t>(detail::bytes(pair[2], pair[3], 0x6420))
                                                       << 32;
}

}  // namespace lowp::kernels::cuda
