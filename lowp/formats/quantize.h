// The arithmetic of quantization: group statistics -> group parameters -> codes -> values. Written once for every
// backend; constexpr, host and device, no library calls, every intermediate rounded where torchao's eager CPU code
// rounds it. Formulas: torchao-spec sections 2, 3 and 5 as torchao 0.18 runs them; deviations are listed in
// docs/NUMERICS.md.
#pragma once

#include "lowp/formats/block.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/divide.h"

namespace lowp::formats {

/// Of the values of one group. Ignores nothing: one NaN or infinity makes `finite` false.
struct GroupStats {
  float min = 0, max = 0;
  bool finite = true;
  bool empty = true;

  LOWP_HD constexpr void add(float x) {
    if (!is_finite(x)) finite = false;
    min = empty || x < min ? x : min;
    max = empty || x > max ? x : max;
    empty = false;
  }
  LOWP_HD constexpr void merge(const GroupStats& other) {
    if (other.empty) return;
    finite = finite && other.finite;
    min = empty || other.min < min ? other.min : min;
    max = empty || other.max > max ? other.max : max;
    empty = false;
  }
  /// Largest magnitude, never -0.
  LOWP_HD constexpr float amax() const { return bits_float(float_bits(-min > max ? min : max) & 0x7FFFFFFFu); }
};

/// What one group needs to encode and decode its values.
struct GroupParams {
  std::uint32_t scale_code = 0;  // e8m0 and e4m3 scales
  float scale = 1;               // value of the stored scale (without the tensor scale)
  float zero_point = 0;
  float multiplier = 1;   // what encoding multiplies by, where the rule multiplies
  bool poisoned = false;  // MX block with a NaN or an infinity: every code is NaN
};

/// ceil(log2(d)) of a positive finite d as torchao computes it: log2 is rounded to f32 first, so a d within half an ulp
/// (of the result) above a power of two is not bumped. Clamped to [-127, 127].
LOWP_HD constexpr int ceil_log2_f32(float d) {
  std::uint32_t bits = float_bits(d) & 0x7FFFFFFFu;
  if (bits == 0) return -127;
  int e = static_cast<int>(bits >> 23) - 127;
  std::uint32_t fraction = bits & 0x7FFFFFu;
  if (e == -127) {  // subnormal: normalise
    e = -126;
    fraction = bits;
    while (!(fraction & 0x800000u)) {
      fraction <<= 1;
      --e;
    }
    fraction &= 0x7FFFFFu;
  }
  if (fraction == 0) return e < -127 ? -127 : e;
  // Spacing of f32 just above e: 2^(p-23) with 2^p <= |e|; below a negative power of two it is half of that.
  std::uint32_t size = static_cast<std::uint32_t>(e < 0 ? -e : e);
  int p = -1;
  while (size >> (p + 1)) ++p;
  const bool halved = e < 0 && (size & (size - 1)) == 0;
  // Bump iff log2(1 + fraction * 2^-23) > half the spacing, i.e. fraction > ln2 * 2^(p-1) (or 2^(p-2)).
  bool bump = true;
  if (e != 0) {
    const float threshold = 0.6931472f * exp2i(p - 1 - (halved ? 1 : 0));
    bump = static_cast<float>(fraction) > threshold;
  }
  const int result = e + (bump ? 1 : 0);
  return result < -127 ? -127 : result > 127 ? 127 : result;
}

/// Power-of-two scale byte (e8m0) of an MX block with the given largest magnitude (finite).
LOWP_HD constexpr std::uint32_t mx_scale_code(Elem element, Scaling scaling, float amax) {
  if (scaling == Scaling::rceil)
    return static_cast<std::uint32_t>(ceil_log2_f32(divide(amax, max_value(element))) + 127);
  std::uint32_t bits = float_bits(amax);
  // Digits after the leading one of the largest value.
  const int digits = info(element).is_float() ? info(element).mantissa_bits : max_exponent(element);
  if (scaling == Scaling::even) bits = (bits + (1u << (22 - digits))) & 0xFF800000u;
  int exponent = static_cast<int>(bits >> 23) - 127 - max_exponent(element);
  if (scaling == Scaling::ceil && (bits & 0x7FFFFFu) != 0) ++exponent;
  exponent = exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
  return static_cast<std::uint32_t>(exponent + 127);
}

/// The second-level scale of a matrix with this largest magnitude: amax / (448 * 6); 1 for an all-zero matrix, where
/// torchao divides by zero.
LOWP_HD constexpr float nvfp4_tensor_scale(float amax) { return amax == 0 ? 1.0f : divide(amax, 2688.0f); }

/// What training multiplies by instead: 2688 / amax; 1 for an all-zero matrix, and where f32 has no such number the
/// largest it has.
LOWP_HD constexpr float nvfp4_training_gain(float amax) {
  if (amax == 0) return 1.0f;
  const float gain = divide(2688.0f, amax);
  return gain > 0x1.fffffep127f ? 0x1.fffffep127f : gain;
}

/// The second-level scale that is stored with a matrix of this largest magnitude, and the one that group scales are
/// chosen with.
LOWP_HD constexpr float stored_tensor_scale(const BlockSpec& format, float amax) {
  return format.rule == Rule::nvfp4_training ? divide(1.0f, nvfp4_training_gain(amax)) : nvfp4_tensor_scale(amax);
}
LOWP_HD constexpr float choosing_scale(const BlockSpec& format, float amax) {
  return format.rule == Rule::nvfp4_training ? nvfp4_training_gain(amax) : nvfp4_tensor_scale(amax);
}

/// eps below which an affine scale never falls: torchao's Int8Tensor uses f32's machine epsilon for every dtype, intx
/// and tinygemm the smallest normal of the input's dtype.
LOWP_HD constexpr float affine_eps(const BlockSpec& format, Elem input) {
  if (!format.scale_in_input_dtype) return 0x1p-23f;
  return input == Elem::f16 ? 0x1p-14f : 0x1p-126f;
}

/// Smallest and largest code of an integer format, as values.
struct CodeRange {
  float low, high;
};

/// Parameters of a group of integers under the rules symmetric, asymmetric and tinygemm.
LOWP_HD constexpr GroupParams choose_affine(const BlockSpec& format, Elem input, CodeRange range,
                                            const GroupStats& stats) {
  GroupParams p;
  const Elem d = input;
  const bool symmetric = format.rule == Rule::symmetric, tinygemm = format.rule == Rule::tinygemm;
  const float low = tinygemm || stats.min < 0 ? stats.min : 0.0f, high = tinygemm || stats.max > 0 ? stats.max : 0.0f;
  const float span = symmetric ? (range.high - range.low) / 2.0f : tinygemm ? range.high : range.high - range.low;
  const float scale = round_to(d, divide(symmetric ? stats.amax() : round_to(d, high - low), span));
  const float eps = affine_eps(format, input);
  p.scale = scale < eps ? eps : scale;
  p.multiplier = divide(1.0f, p.scale);
  if (format.scale_in_input_dtype) p.multiplier = round_to(d, p.multiplier);
  if (tinygemm) {
    p.zero_point = round_to(d, stats.min + round_to(d, p.scale * ((range.high + 1) / 2)));
  } else if (!symmetric) {
    const float zero = round_to(d, range.low - round_half_even(round_to(d, divide(low, p.scale))));
    p.zero_point = zero < range.low ? range.low : zero > range.high ? range.high : zero;
  }
  return p;
}

/// Parameters of one group. `input` is the dtype of the values, which decides where intermediates are rounded;
/// `tensor_scale` is used by two-level formats: choosing_scale(). Statistics must be finite unless the rule is mx.
LOWP_HD constexpr GroupParams choose_params(const BlockSpec& format, Elem input, Scaling scaling,
                                            const GroupStats& stats, float tensor_scale) {
  GroupParams p;
  const Elem d = input;
  switch (format.rule) {
    case Rule::plain:
      break;
    case Rule::mx: {
      p.scale_code = stats.finite ? mx_scale_code(format.element, scaling, stats.amax()) : 255u;
      p.scale = decode(Elem::e8m0, p.scale_code);
      p.poisoned = !stats.finite;
      const int b = static_cast<int>(p.scale_code);
      // As run: rceil multiplies by 1 when b = 0; the other modes never divide by less than the smallest normal.
      p.multiplier = scaling == Scaling::rceil && b == 0 ? 1.0f : exp2i(127 - (b < 1 ? 1 : b > 254 ? 254 : b));
      break;
    }
    case Rule::nvfp4: {
      const float q = divide(stats.amax(), 6.0f);
      const float ratio = format.tensor_scale ? divide(q, tensor_scale) : q;
      const float clamped = ratio < 0x1p-6f ? 0x1p-6f : ratio > 448.0f ? 448.0f : ratio;
      p.scale_code = encode(Elem::e4m3, clamped);
      p.scale = decode(Elem::e4m3, p.scale_code);
      p.multiplier = divide(format.tensor_scale ? divide(1.0f, tensor_scale) : 1.0f, p.scale);
      break;
    }
    case Rule::nvfp4_training: {
      const float ratio = divide(stats.amax(), 6.0f) * tensor_scale;
      p.scale_code = encode(Elem::e4m3, ratio < 0x1p-6f ? 0x1p-6f : ratio > 448.0f ? 448.0f : ratio);
      p.scale = decode(Elem::e4m3, p.scale_code);
      const float multiplier = divide(1.0f, p.scale * divide(1.0f, tensor_scale));
      p.multiplier = multiplier > 0x1.fffffep127f ? 0x1.fffffep127f : multiplier;
      break;
    }
    case Rule::float8: {
      const float amax = stats.amax();
      p.scale = amax == 0 ? 1.0f : round_to(d, divide(amax, max_value(format.element)));
      break;
    }
    case Rule::symmetric:
    case Rule::asymmetric:
    case Rule::tinygemm:
      return choose_affine(format, input, {min_value(format.element), max_value(format.element)}, stats);
    case Rule::bias:
    case Rule::shift: {
      const float qmax = max_value(format.element), eps = affine_eps(format, input);
      const float scale = round_to(d, divide(round_to(d, stats.max - stats.min), qmax));
      p.scale = scale < eps ? eps : scale;
      p.zero_point = format.rule == Rule::bias ? stats.min : round_to(d, divide(-stats.min, p.scale));
      break;
    }
    case Rule::absmax: {
      const float scale = divide(stats.amax(), max_value(format.element));
      p.scale = round_to(Elem::f16, scale);
      p.multiplier = scale == 0 ? 0.0f : divide(1.0f, scale);
      break;
    }
    case Rule::sym8: {
      const float amax = stats.amax();
      p.scale = (amax < 1e-6f ? 1e-6f : amax) / 8.0f;
      break;
    }
    case Rule::codebook:
      p.scale = stats.max < 1e-9f ? 1e-9f : stats.max;
      break;
  }
  if (format.scale_in_input_dtype) p.multiplier = round_to(d, p.multiplier);
  return p;
}

/// Whether a format's values can be rounded by chance: those that are scaled and then rounded to a float.
LOWP_HD constexpr bool rounds_stochastically(const BlockSpec& format) {
  return format.rule == Rule::mx || format.rule == Rule::nvfp4 || format.rule == Rule::nvfp4_training ||
         format.rule == Rule::float8;
}

/// x in units of its group, before it is rounded to the element, under the rules of rounds_stochastically().
LOWP_HD constexpr float scale_element(const BlockSpec& format, const GroupParams& p, float x) {
  if (format.rule == Rule::mx) return p.poisoned ? bits_float(kQuietNan) : x * p.multiplier;
  if (x == 0) return x;  // also times infinity (a tensor scale too small to invert)
  return format.rule == Rule::float8 ? divide(x, p.scale) : x * p.multiplier;
}

/// The code of x in a group with these parameters. Codebook formats are encoded by nearest_entry().
LOWP_HD constexpr std::uint32_t encode_element(const BlockSpec& format, Elem input, const GroupParams& p, float x) {
  switch (format.rule) {
    case Rule::plain:
      return encode(format.element, x, Overflow::saturate);
    case Rule::mx:
    case Rule::nvfp4:
    case Rule::nvfp4_training:
    case Rule::float8:
      return encode(format.element, scale_element(format, p, x));
    case Rule::symmetric:
    case Rule::asymmetric: {
      const Elem product = format.scale_in_input_dtype ? input : Elem::f32;
      const float q = round_half_even(round_to(product, x * p.multiplier));
      return encode(format.element, round_to(product, q + p.zero_point));
    }
    case Rule::tinygemm: {
      const float middle = (max_value(format.element) + 1) / 2;
      const float low = round_to(input, p.zero_point - round_to(input, p.scale * middle));
      return encode(format.element, round_to(input, divide(round_to(input, x - low), p.scale)));
    }
    case Rule::bias:
      if (p.scale == 0) return 0;  // of a super-block whose other groups are far larger
      return encode(format.element, round_half_even(divide(x - p.zero_point, p.scale)));
    case Rule::shift:
      return encode(format.element, round_half_even(divide(x, p.scale) + p.zero_point));
    case Rule::absmax:
      return encode(format.element, round_half_away(x * p.multiplier));
    case Rule::sym8:
      return encode(format.element, divide(x, p.scale));
    case Rule::codebook:
      break;
  }
  return 0;
}

/// The value of a code, rounded to `output` where torchao's dequantize to that dtype rounds (2.5, 3.1, 5.0).
LOWP_HD constexpr float decode_element(const BlockSpec& format, Elem output, const GroupParams& p, float tensor_scale,
                                       std::uint32_t code) {
  const float q = decode(format.element, code);
  switch (format.rule) {
    case Rule::plain:
      return round_to(output, q);
    case Rule::mx:
      return round_to(output, q * p.scale);
    case Rule::nvfp4:
    case Rule::nvfp4_training:
      return round_to(output, q * (format.tensor_scale ? tensor_scale * p.scale : p.scale));
    case Rule::float8:
    case Rule::symmetric:
    case Rule::absmax:
    case Rule::sym8:
      return round_to(output, q * p.scale);
    case Rule::asymmetric:
      return round_to(output, (q - p.zero_point) * p.scale);
    case Rule::tinygemm: {
      const float middle = (max_value(format.element) + 1) / 2;
      return round_to(output, round_to(output, (q - middle) * p.scale) + p.zero_point);
    }
    case Rule::bias:
      return round_to(output, q * p.scale + p.zero_point);
    case Rule::shift:
      return round_to(output, round_to(output, q - p.zero_point) * p.scale);
    case Rule::codebook:
      break;
  }
  return 0;
}

/// Puts the parameters of `count` neighbouring groups on the grid of a super-block: scale = f16 * integer, and
/// zero_point = -(f16 * integer), the f16 so that the largest just fits (ggml's K-quants). Both products are exact.
LOWP_HD constexpr void fit_super_block(const BlockSpec& format, GroupParams* groups, int count) {
  const float top = max_value(format.super_multiple);
  float scale = 0, minimum = 0;
  for (int i = 0; i < count; ++i) {
    scale = groups[i].scale > scale ? groups[i].scale : scale;
    minimum = -groups[i].zero_point > minimum ? -groups[i].zero_point : minimum;
  }
  const float scale_unit = round_to(Elem::f16, scale / top), minimum_unit = round_to(Elem::f16, minimum / top);
  const auto on_grid = [top](float value, float unit) {
    if (!(unit > 0) || !(value > 0)) return 0.0f;
    const float multiple = round_half_even(value / unit);
    return unit * (multiple > top ? top : multiple);
  };
  for (int i = 0; i < count; ++i) {
    GroupParams& p = groups[i];
    p.scale = on_grid(p.scale, scale_unit);
    p.zero_point = -on_grid(-p.zero_point, minimum_unit);
    p.multiplier = p.scale > 0 ? 1.0f / p.scale : 0.0f;
  }
}

/// Index of the table entry nearest to y: the largest y*c - c*c/2, the first on ties (5.9).
LOWP_HD constexpr std::uint32_t nearest_entry(const float* table, int size, float y) {
  std::uint32_t best = 0;
  float best_score = y * table[0] - 0.5f * table[0] * table[0];
  for (int i = 1; i < size; ++i) {
    const float score = y * table[i] - 0.5f * table[i] * table[i];
    if (score > best_score) {
      best_score = score;
      best = static_cast<std::uint32_t>(i);
    }
  }
  return best;
}

}  // namespace lowp::formats
