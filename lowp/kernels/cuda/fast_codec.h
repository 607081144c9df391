// Fast encoders for the GPU: the results of formats/codec.h and formats/quantize.h in a few instructions. Plain C++ but
// for the hardware's own 8-bit converts, so that the host tests them exhaustively against formats/
// (fast_codec_test.cpp).
#pragma once

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
// High halves of two words: a's below, b's above.
LOWP_HD inline std::uint32_t high_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, 0x7632);
#else
  return (a >> 16) | (b & 0xFFFF0000u);
#endif
}
LOWP_HD inline std::uint32_t min_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __vminu2(a, b);
#else
  const std::uint32_t low = (a & 0xFFFFu) < (b & 0xFFFFu) ? a & 0xFFFFu : b & 0xFFFFu;
  return low | ((a >> 16) < (b >> 16) ? a & 0xFFFF0000u : b & 0xFFFF0000u);
#endif
}
LOWP_HD inline std::uint32_t max_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __vmaxu2(a, b);
#else
  const std::uint32_t low = (a & 0xFFFFu) > (b & 0xFFFFu) ? a & 0xFFFFu : b & 0xFFFFu;
  return low | ((a >> 16) > (b >> 16) ? a & 0xFFFF0000u : b & 0xFFFF0000u);
#endif
}
LOWP_HD inline std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, 0x5410);
#else
  return (a & 0xFFFFu) | b << 16;
#endif
}
// Arithmetic on two bf16, rounded to nearest.
#ifdef __CUDA_ARCH__
__device__ inline std::uint32_t mul_pairs(std::uint32_t a, std::uint32_t b) { return ptx::mul_bf16x2(a, b); }
__device__ inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b) { return ptx::add_bf16x2(a, b); }
__device__ inline std::uint32_t sub_pairs(std::uint32_t a, std::uint32_t b) { return ptx::sub_bf16x2(a, b); }
#else
template <class Operation>
std::uint32_t by_halves(std::uint32_t a, std::uint32_t b, const Operation& operation) {
  // Sums and products of two bf16 are exact in f64, and so close to f32 that rounding there first changes nothing but
  // for sums of very different magnitudes, which these are not.
  const auto one = [&](std::uint32_t x, std::uint32_t y) {
    return float_bits(formats::round_to(Elem::bf16, operation(bits_float(x), bits_float(y)))) >> 16;
  };
  return one(a << 16, b << 16) | one(a & 0xFFFF0000u, b & 0xFFFF0000u) << 16;
}
inline std::uint32_t mul_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, [](float x, float y) { return x * y; });
}
inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, [](float x, float y) { return x + y; });
}
inline std::uint32_t sub_pairs(std::uint32_t a, std::uint32_t b) {
  return by_halves(a, b, [](float x, float y) { return x - y; });
}
#endif
// The first byte of each of four words, in order.
LOWP_HD inline std::uint32_t low_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
#ifdef __CUDA_ARCH__
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
#else
  return (a & 0xFFu) | (b & 0xFFu) << 8 | (c & 0xFFu) << 16 | d << 24;
#endif
}
}  // namespace detail

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

/// Eight E2M1 codes, the first in the lowest bits, from magnitude codes in bits 6 to 8 of each half: code[i] and
/// sign[i] (of whose halves the top bits count) belong to values 2i and 2i + 1.
LOWP_HD inline std::uint32_t pack_e2m1_pairs(const std::uint32_t (&code)[4], const std::uint32_t (&sign)[4]) {
  std::uint32_t half[2];
  for (int i = 0; i < 2; ++i)
    half[i] = code[2 * i] >> 6 | code[2 * i + 1] << 2 | (sign[2 * i] >> 12 & 0x00080008u) |
              (sign[2 * i + 1] >> 4 & 0x08000800u);
  return detail::low_halves(half[0], half[1]) | detail::high_halves(half[0], half[1]) << 4;
}

/// E2M1 codes of eight values: formats::encode(Elem::e2m1, y[i]), the signs from the top bits of the halves of `sign`.
LOWP_HD inline std::uint32_t encode8_e2m1(const float (&y)[8], const std::uint32_t (&sign)[4]) {
  std::uint32_t code[4];
  for (int i = 0; i < 4; ++i) {
    // Two significant bits are left: exact in bf16, where one instruction moves the grid of two onto the integers.
    const std::uint32_t pair = detail::high_halves(float_bits(round_to_step<Elem::e2m1>(y[2 * i])),
                                                   float_bits(round_to_step<Elem::e2m1>(y[2 * i + 1])));
    code[i] = detail::min_halves(detail::mul_pairs(pair, 0x00800080u), 0x01C001C0u);  // times 2^-126
  }
  return pack_e2m1_pairs(code, sign);
}

/// Magnitude codes in E2M1 of two bf16 at once, limited to the largest: bits 6 to 8 of each half. Exact,
/// because a bf16's 8 significant bits fit where E2M1's places are rounded away.
LOWP_HD inline std::uint32_t round_pair_to_e2m1(std::uint32_t pair) {
  const std::uint32_t exponent = detail::max_halves(pair & 0x7F807F80u, 0x3F803F80u);
  const std::uint32_t step_up = detail::mul_pairs(exponent, 0x42C042C0u);  // times 1.5 * 2^6
  const std::uint32_t rounded = detail::sub_pairs(detail::add_pairs(pair & 0x7FFF7FFFu, step_up), step_up);
  return detail::min_halves(detail::mul_pairs(rounded, 0x00800080u), 0x01C001C0u);  // times 2^-126
}

/// E2M1 codes of eight bf16 times a power of two, as encode8_nibbles. `multiplier`: bf16, the same in both halves.
LOWP_HD inline std::uint32_t encode8_pairs(const std::uint32_t (&word)[4], std::uint32_t multiplier) {
  std::uint32_t code[4];
  for (int i = 0; i < 4; ++i) code[i] = round_pair_to_e2m1(detail::mul_pairs(word[i], multiplier));
  return pack_e2m1_pairs(code, word);
}

/// The same for two columns: word r holds row r of both; multiplier: of the columns.
LOWP_HD inline void encode8_column_pairs(const std::uint32_t (&word)[8], std::uint32_t multiplier,
                                         std::uint32_t (&out)[2]) {
  std::uint32_t half[2];
  for (int i = 0; i < 2; ++i) {
    std::uint32_t code[4], sign[4];
    for (int j = 0; j < 4; ++j) {
      sign[j] = word[4 * i + j];
      code[j] = round_pair_to_e2m1(detail::mul_pairs(sign[j], multiplier));
    }
    half[i] = code[0] >> 6 | code[1] >> 2 | code[2] << 2 | code[3] << 6 | (sign[0] >> 12 & 0x00080008u) |
              (sign[1] >> 8 & 0x00800080u) | (sign[2] >> 4 & 0x08000800u) | (sign[3] & 0x80008000u);
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

/// Rounds to an integer, half to even, within [low, high]: formats::encode of an integer element, as a signed byte.
LOWP_HD inline std::uint32_t encode_integer(float q, float low, float high) {
  q = clamp(q, low, high);
  return float_bits(q + 12582912.0f) & 0xFFu;  // 1.5 * 2^23: the adder rounds, the low bits are two's complement
}

}  // namespace lowp::kernels::cuda
