// How one group of values is encoded on the GPU: one codec for each family of formats. A kernel gathers a group's
// statistics, calls choose() and hands eight values at a time to encode8(). Arithmetic: formats/quantize.h, in the
// faster forms of fast_codec.h where those give the same bits.
#pragma once

#include <cuda_fp16.h>

#include "lowp/kernels/cuda/cast_args.h"
#include "lowp/kernels/cuda/fast_codec.h"

namespace lowp::kernels::cuda {

/// A group's parameters. `stored`: the scale as it is stored, a byte or the bits of an f32; `shared`: what encode()
/// reads, which the lanes of a group pass to each other.
struct Chosen {
  std::uint32_t stored = 0;
  float zero_point = 0;
  float shared[4] = {};

  Chosen() = default;
  /// Encoding divides by an f32 scale.
  __device__ explicit Chosen(float scale) : stored(float_bits(scale)) {
    const Divisor d = make_divisor(scale);
    shared[0] = d.scale, shared[1] = d.reciprocal, shared[2] = d.lift;
  }
  __device__ Divisor divisor() const { return {shared[0], shared[1], shared[2]}; }
  __device__ float multiplier() const { return shared[0]; }
};

/// By the conversion of two numbers: that of one is four times as slow.
template <Elem Input>
__device__ __forceinline__ float round_to_input(float x) {
  if constexpr (Input == Elem::bf16) return bits_float(ptx::cvt_bf16x2(0.0f, x));
  if constexpr (Input == Elem::f16) return __half2float(__ushort_as_half(ptx::cvt_f16x2(x, 0.0f) & 0xFFFFu));
  return x;
}

/// What the codecs of most formats are not.
struct CodecTraits {
  static constexpr bool kTwoLevels = false;  // may have a quicker arithmetic for usual tensor scales:
  using Usual = void;                        // the codec that has it
  static constexpr bool kRotates = false;    // has a Hadamard transform in front
  static constexpr bool kByChance = false;   // rounds by chance
};

/// Eight values on their way into codes. `sign`: words whose halves carry the signs of two values each in their top
/// bits. `element`: place of the first in the result, for rounding by chance.
struct Eight {
  float x[8];
  std::uint32_t sign[4];
  std::uint64_t element;
};

/// The launch's arguments with the tensor scale of an expert: from amax[expert] unless amax is null.
__device__ __forceinline__ CodecArgs codec_of(CodecArgs args, const MatrixAmax* amax, std::uint32_t expert) {
  if (amax && args.format.tensor_scale) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(amax + expert));
    args.all_zero = v.x == 0;
    args.tensor_scale =
        args.format.rule == Rule::nvfp4_training ? formats::nvfp4_training_gain(bits_float(v.x)) : bits_float(v.z);
    args.reciprocal = bits_float(v.w);
  }
  return args;
}

/// Codes of eight values times a positive number in the low bytes: 8 bytes, or 4 for a 4-bit float.
template <Elem E>
__device__ __forceinline__ std::uint64_t encode8_products(const Eight& v, float multiplier) {
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) y[i] = (E == Elem::e2m1 ? fabsf(v.x[i]) : v.x[i]) * multiplier;
  if constexpr (E == Elem::e2m1)
    return encode8_e2m1(y, v.sign);
  else
    return encode8_bytes<E>(y);
}

/// A codec's values rounded by chance instead of to the nearest.
template <class Codec>
struct Stochastic : Codec {
  static constexpr bool kPairs = false, kByChance = true;
  using Usual = Stochastic<typename Codec::Usual>;

  __device__ static std::uint64_t encode(const CodecArgs& args, const Chosen& c, const Eight& v) {
    constexpr int bits = formats::info(Codec::kElement).bits;
    std::uint64_t codes = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      codes |= static_cast<std::uint64_t>(formats::encode_stochastic(Codec::kElement, Codec::scaled(c, v.x[i]),
                                                                     formats::random_bits(args.random, v.element + i)))
               << bits * i;
    return codes;
  }
};

/// The code of NaN in all places, where a block with NaN or infinity has no other way to say so.
template <Elem E>
constexpr std::uint64_t kNanCodes = [] {
  const std::uint64_t code = formats::encode(E, bits_float(formats::kQuietNan));
  return formats::info(E).bits == 4 ? code * 0x11111111u : code * 0x0101010101010101u;
}();

template <Elem E, Elem In>
struct MxCodec : CodecTraits {
  static constexpr Elem kElement = E, kInput = In;
  static constexpr bool kByteScale = true, kMinMax = false, kNibbles = formats::info(E).bits == 4;
  /// E2M1 under a power-of-two scale from bf16 stays exact in bf16: two values an instruction.
  static constexpr bool kPairs = E == Elem::e2m1 && In == Elem::bf16;
  static constexpr int kGroup = 32, kShared = 1;  // floats of Chosen that encode8 reads

  __device__ static Chosen choose(const CodecArgs& args, std::uint32_t amax_bits) {
    Chosen c;
    c.stored = fast_mx_scale_code<E, In>(args.scaling, args.mx_bump, amax_bits);
    c.shared[0] = mx_multiplier(args.scaling, c.stored);
    return c;
  }
  __device__ static float scaled(const Chosen& c, float x) { return poisoned(c) ? c.multiplier() : x * c.multiplier(); }
  __device__ static std::uint64_t encode(const CodecArgs&, const Chosen& c, const Eight& v) {
    const std::uint64_t codes = encode8_products<E>(v, c.multiplier());
    return is_narrow_float(E) && poisoned(c) ? kNanCodes<E> : codes;
  }
  __device__ static std::uint64_t encode_pairs(const Chosen& c, const std::uint32_t (&word)[4]) {
    const std::uint32_t multiplier = detail::high_halves(float_bits(c.multiplier()), float_bits(c.multiplier()));
    const std::uint32_t codes = encode8_pairs(word, multiplier);
    return poisoned(c) ? kNanCodes<E> : codes;
  }
  __device__ static void encode_column_pairs(const Chosen (&c)[2], const std::uint32_t (&word)[8],
                                             std::uint32_t (&out)[2]) {
    std::uint32_t multiplier = detail::high_halves(float_bits(c[0].multiplier()), float_bits(c[1].multiplier()));
    std::uint32_t magnitude = 0x7FFF7FFFu;
    if (poisoned(c[0])) magnitude &= 0xFFFF0000u, multiplier &= 0xFFFF0000u;
    if (poisoned(c[1])) magnitude &= 0x0000FFFFu, multiplier &= 0x0000FFFFu;
    encode8_column_pairs(word, multiplier, magnitude, out);
    for (int i = 0; i < 2; ++i)
      if (poisoned(c[i])) out[i] = static_cast<std::uint32_t>(kNanCodes<E>);
  }

 private:
  __device__ static bool poisoned(const Chosen& c) { return c.multiplier() != c.multiplier(); }
};

/// How many levels of scales, and whether the second one may be beyond is_usual().
enum class Nvfp4 { one_level, two_levels_usual, two_levels };

template <Nvfp4 L, Elem In>
struct Nvfp4Codec : CodecTraits {
  static constexpr Elem kElement = Elem::e2m1, kInput = In;
  static constexpr bool kTwoLevels = L != Nvfp4::one_level;
  using Usual = Nvfp4Codec<Nvfp4::two_levels_usual, In>;
  static constexpr bool kByteScale = true, kMinMax = false, kNibbles = true, kPairs = false;
  static constexpr int kGroup = 16, kShared = 1;

  __device__ static Chosen choose(const CodecArgs& args, std::uint32_t amax_bits) {
    Chosen c;
    if constexpr (L == Nvfp4::two_levels) {
      // Rarely taken, so that it is small rather than fast: amax / 6, that / tensor_scale, reciprocal / scale.
      float x = bits_float(amax_bits), scale = 1;
#pragma unroll 1
      for (int step = 0; step < 3; ++step) {
        const float by = step == 0 ? 6.0f : step == 1 ? args.tensor_scale : scale;
        x = formats::divide_by_bits(step == 2 ? args.reciprocal : x, by);
        if (step != 1) continue;
        c.stored = encode_normal_e4m3(x < 0x1p-6f ? 0x1p-6f : x > 448.0f ? 448.0f : x);
        scale = x == x ? decode_normal_e4m3(c.stored) : x;
      }
      c.shared[0] = x;
    } else {
      const float amax = bits_float(amax_bits);
      const Nvfp4Scale s =
          kTwoLevels ? quick_nvfp4_scale(amax, args.tensor_scale, args.reciprocal) : quick_nvfp4_scale(amax);
      c.stored = s.code;
      c.shared[0] = s.multiplier;
    }
    if (kTwoLevels && args.all_zero) c.stored = formats::encode(Elem::e4m3, 1.0f);
    return c;
  }
  __device__ static float scaled(const Chosen& c, float x) {
    // Under a tensor scale too small to invert, zeros stay zero.
    return L == Nvfp4::two_levels && x == 0 ? x : x * c.multiplier();
  }
  __device__ static std::uint64_t encode(const CodecArgs&, const Chosen& c, const Eight& v) {
    if constexpr (L != Nvfp4::two_levels) {
      return encode8_products<Elem::e2m1>(v, c.multiplier());
    } else {
      float y[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) y[i] = fabsf(scaled(c, v.x[i]));
      return encode8_e2m1(y, v.sign);
    }
  }
};

/// Rule::nvfp4_training. args.tensor_scale: formats::choosing_scale.
template <Elem In>
struct TrainingCodec : CodecTraits {
  static constexpr Elem kElement = Elem::e2m1, kInput = In;
  static constexpr bool kRotates = true;
  static constexpr bool kByteScale = true, kMinMax = false, kNibbles = true, kPairs = false;
  static constexpr int kGroup = 16, kShared = 1;

  __device__ static Chosen choose(const CodecArgs& args, std::uint32_t amax_bits) {
    formats::GroupStats stats;
    stats.add(bits_float(amax_bits));
    const formats::GroupParams p = formats::choose_params(args.format, In, args.scaling, stats, args.tensor_scale);
    Chosen c;
    c.stored = p.scale_code;
    c.shared[0] = p.multiplier;
    return c;
  }
  __device__ static float scaled(const Chosen& c, float x) { return x * c.multiplier(); }
  __device__ static std::uint64_t encode(const CodecArgs&, const Chosen& c, const Eight& v) {
    return encode8_products<Elem::e2m1>(v, c.multiplier());
  }
};

/// Calls body(codec) with the codec for a launch's tensor scale, which only the device knows: the quick one if it is
/// usual. The decision is taken once, not in every group.
template <class Codec, class Body>
__device__ __forceinline__ void for_tensor_scale(const CodecArgs& args, const Body& body) {
  if constexpr (Codec::kTwoLevels) {
    if (is_usual(args.tensor_scale)) return body(typename Codec::Usual());
  }
  body(Codec());
}

template <Elem In>
struct Float8Codec : CodecTraits {
  static constexpr Elem kElement = Elem::e4m3, kInput = In;
  static constexpr bool kByteScale = false, kMinMax = false, kNibbles = false, kPairs = false;
  static constexpr int kGroup = 128, kShared = 3;
  // An f16 scale of 0 can come from values far larger than the smallest.
  static constexpr bool kLimits = In == Elem::f16;

  __device__ static Chosen choose(const CodecArgs&, std::uint32_t amax_bits) {
    const float scale = round_to_input<In>(formats::divide(bits_float(amax_bits), formats::max_value(kElement)));
    return Chosen(amax_bits == 0 ? 1.0f : scale);
  }
  __device__ static std::uint64_t encode(const CodecArgs& args, const Chosen& c, const Eight& v) {
    const Divisor d = c.divisor();
    float y[8];
    if (kLimits || args.given_scale) {
#pragma unroll
      for (int i = 0; i < 8; ++i) y[i] = limited_quotient(v.x[i], d);
    } else if (In == Elem::bf16 && d.lift == 1.0f) {
      const SplitReciprocal r = split_reciprocal(d);
#pragma unroll
      for (int i = 0; i < 8; ++i) y[i] = short_quotient(v.x[i], r);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) y[i] = quotient(v.x[i], d);
    }
    return encode8_bytes<kElement>(y);
  }
};

/// Integers with a scale in f32 or in the input's dtype, symmetric, asymmetric, with a float zero point, sym8 or
/// absmax.
template <Rule R, bool InInput, Elem In>
struct IntegerCodec : CodecTraits {
  static constexpr Elem kInput = In;
  static constexpr bool kByteScale = false, kMinMax = R == Rule::asymmetric || R == Rule::tinygemm, kNibbles = false,
                        kPairs = false;
  static constexpr int kGroup = 0;  // any group size
  // A multiplier, a multiplier and a zero point, a divisor, or that and tinygemm's lowest value.
  static constexpr int kShared = R == Rule::symmetric || R == Rule::absmax ? 1
                                 : R == Rule::asymmetric                   ? 2
                                 : R == Rule::sym8                         ? 3
                                                                           : 4;

  template <class Stats>
  __device__ static Chosen choose(const CodecArgs& args, const Stats& found) {
    BlockSpec format = args.format;
    format.rule = R;
    format.scale_in_input_dtype = InInput;
    formats::GroupStats stats;
    if constexpr (kMinMax)
      stats = found.stats();
    else
      stats.add(bits_float(found));
    const formats::GroupParams p = params(args, format, stats);
    Chosen c;
    if constexpr (R == Rule::symmetric || R == Rule::asymmetric || R == Rule::absmax)
      c.shared[0] = p.multiplier;
    else
      c = Chosen(p.scale);
    if constexpr (R == Rule::asymmetric) c.shared[1] = p.zero_point;
    if constexpr (R == Rule::tinygemm)
      c.shared[3] = round_to_input<In>(p.zero_point - round_to_input<In>(p.scale * ((args.range.high + 1) / 2)));
    c.stored = float_bits(p.scale);
    c.zero_point = p.zero_point;
    return c;
  }
  __device__ static std::uint64_t encode(const CodecArgs& args, const Chosen& c, const Eight& v) {
    const auto& x = v.x;
    const float low = args.range.low, high = args.range.high;
    std::uint32_t code[8];
    if constexpr (R == Rule::symmetric || R == Rule::asymmetric) {
      if (!args.given_scale) {
        // Quotients are within 256 of zero, so that 16 bits hold them.
        float sum[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sum[i] = product(x[i] * c.multiplier()) + kRoundToInteger;
          if constexpr (R == Rule::asymmetric) sum[i] += c.shared[1];
        }
        return encode8_integers(sum, args.range.low, args.range.high);
      }
    }
    if constexpr (R == Rule::symmetric) {
#pragma unroll
      for (int i = 0; i < 8; ++i) code[i] = encode_integer(product(x[i] * c.multiplier()), low, high);
    } else if constexpr (R == Rule::asymmetric) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        // Beyond +-1024 the zero point, at most 255, cannot bring it back into range.
        const float q = clamp(product(x[i] * c.multiplier()), -1024.0f, 1024.0f);
        code[i] = encode_integer((q + kRoundToInteger) - kRoundToInteger + c.shared[1], low, high);
      }
    } else if constexpr (R == Rule::tinygemm) {
      const Divisor d = c.divisor();
      float above[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) above[i] = round_to_input<In>(x[i] - c.shared[3]);
      if (In == Elem::bf16 && d.lift == 1.0f) {
        const SplitReciprocal r = split_reciprocal(d);
        if (high < 64) {
          // The adder of bf16 rounds to integers above 192, two at once.
          std::uint32_t pair[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            pair[i] = ptx::cvt_bf16x2(short_quotient(above[2 * i], r), short_quotient(above[2 * i + 1], r));
            pair[i] = ptx::min_bf16x2(ptx::max_bf16x2(pair[i], ptx::cvt_bf16x2(low, low)), ptx::cvt_bf16x2(high, high));
            pair[i] = ptx::add_bf16x2(pair[i], kPairBase);
          }
          const std::uint64_t codes = detail::bytes(pair[0], pair[1], 0x6420) |
                                      static_cast<std::uint64_t>(detail::bytes(pair[2], pair[3], 0x6420)) << 32;
          return codes & 0x3F3F3F3F3F3F3F3Full;
        }
#pragma unroll
        for (int i = 0; i < 8; ++i)
          code[i] = encode_integer(round_to_input<In>(short_quotient(above[i], r)), low, high);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
          code[i] = encode_integer(round_to_input<In>(limited_quotient(above[i], d)), low, high);
      }
    } else if constexpr (R == Rule::absmax) {
#pragma unroll
      for (int i = 0; i < 8; ++i)  // zero stays zero under a multiplier that is infinite
        code[i] = encode_integer(x[i] == 0 ? 0.0f : round_half_away(x[i] * c.multiplier()), low, high);
    } else {
      static_assert(R == Rule::sym8);
#pragma unroll
      for (int i = 0; i < 8; ++i) code[i] = encode_integer(quotient(x[i], c.divisor()), low, high);
    }
    return detail::low_bytes(code[0], code[1], code[2], code[3]) |
           static_cast<std::uint64_t>(detail::low_bytes(code[4], code[5], code[6], code[7])) << 32;
  }

 private:
  // formats::choose_params with the range that the launch knows: its own is in a table in device memory.
  __device__ static formats::GroupParams params(const CodecArgs& args, const BlockSpec& format,
                                                const formats::GroupStats& stats) {
    formats::GroupParams p;
    if constexpr (R == Rule::sym8) return formats::choose_params(format, In, args.scaling, stats, 1.0f);
    if constexpr (R == Rule::absmax) {
      const float scale = formats::divide(stats.amax(), args.range.high);
      p.scale = round_to_input<Elem::f16>(scale);
      p.multiplier = scale == 0 ? 0.0f : formats::divide(1.0f, scale);
      return p;
    }
    return formats::choose_affine(format, In, args.range, stats);
  }
  // To an integer of less than 2^23, half away from zero.
  __device__ static float round_half_away(float x) {
    return copysignf(__fadd_rz(__fadd_rz(fabsf(x), 0.5f), 0x1p23f) - 0x1p23f, x);
  }
  __device__ static float product(float x) { return InInput ? round_to_input<In>(x) : x; }
};

}  // namespace lowp::kernels::cuda
