// Group parameters and codes of each rule, kLanes groups or elements at a time: formats/quantize.h in vectors. Groups
// whose numbers a shortcut does not cover are marked odd, and quantize_group() does them.
#pragma once

#include <array>

#include "lowp/kernels/cpu/cast_input.h"
#include "lowp/kernels/kernel.h"

namespace lowp::kernels::cpu::LOWP_ISA {

using formats::Elem;
using formats::Scaling;

constexpr int kGroups = 64;  // at a time

/// Statistics and parameters of up to kGroups groups. low and high mean what
/// the rule says.
struct Chunk {
  alignas(64) float least[kGroups], most[kGroups];  // values, or magnitudes
  alignas(64) float scale[kGroups], multiplier[kGroups], low[kGroups], high[kGroups], zero_point[kGroups];
  alignas(64) std::int32_t zero[kGroups], scale_code[kGroups], odd[kGroups];
};

/// A group's parameters for each lane.
struct Lane {
  Floats scale, multiplier, low, high, zero_point;
  Ints zero;
};

/// Code of y with the sign of `signed_x`; y is not NaN. Bits above the code's are arbitrary.
///
/// Adding 2^(e + 23 - mantissa bits) to a number with exponent e leaves its significand, rounded half to even, in the
/// lowest bits; where e is that of the smallest normal for all smaller numbers, that is the code of a subnormal.
template <Elem e>
Ints encode_float(Floats y, Ints signed_x) {
  constexpr formats::ElementFormat f = formats::info(e);
  constexpr int kDrop = 23 - f.mantissa_bits;
  constexpr std::int32_t kLargest = static_cast<std::int32_t>(float_bits(formats::max_value(e)));
  constexpr std::int32_t kSmallest = (1 - f.bias + 127) << 23;
  constexpr std::int32_t kSign = 1 << (f.bits - 1);
  const Ints magnitude = min_int(bits(y) & kMagnitude, all(kLargest));
  const Ints exponent = max_int(magnitude & 0x7F800000, all(kSmallest));
  const Ints sum = bits(floats(magnitude) + floats(exponent + (kDrop << 23)));
  const Ints code = sum + logical_shift(exponent, kDrop) - (kSmallest >> kDrop);
  return choose(all(kSign), logical_shift(signed_x, 32 - f.bits), code);
}

/// x / s for r = 1 / s rounded: two corrections by the exact remainder leave the correctly rounded quotient
/// (Markstein), as long as nothing over- or underflows; plain() says when.
inline Floats divide(Floats x, Floats s, Floats r) {
  Floats q = x * r;
  q = fused(fused_negative(q, s, x), r, q);
  return fused(fused_negative(q, s, x), r, q);
}
inline Ints not_plain(Floats scale) { return ~(((Ints)(scale > all(0x1p-60f))) & ((Ints)(scale < all(0x1p60f)))); }

inline Floats select(Ints mask, Floats a, Floats b) { return floats(choose(mask, bits(a), bits(b))); }

template <class In>
Floats round_in(bool in_input_dtype, Floats x) {
  return in_input_dtype ? In::round(x) : x;
}

inline Floats affine_floor(const formats::BlockSpec& format, Elem input, Floats scale) {
  const Floats eps = all(formats::affine_eps(format, input));
  return select(scale < eps, eps, scale);
}

enum class Look { magnitude, range, nothing };

/// Plain: rounding to a float format, saturating. Not for NaN.
template <class In, Elem e>
struct Plain {
  static constexpr Look kLook = Look::magnitude;  // finds the NaN
  static constexpr int kBits = formats::info(e).bits;
  explicit Plain(const QuantizeTask&) {}
  void params(Chunk& c, int g) const { store(c.odd + g, bits(load(c.most + g)) > kInfinity); }
  Ints code(Floats x, const Lane&) const {
    if constexpr (e == Elem::bf16) {  // its exponents leave no room for encode_float()'s sum
      const Ints magnitude = min_int(bits(x) & kMagnitude, all(0x7F7F0000));
      return choose(all(kMagnitude), bits(round_bf16(floats(magnitude))), bits(x)) >> 16;
    } else {
      const Ints code = encode_float<e>(x, bits(x));
      return kBits == 6 ? code & 0x3F : code;
    }
  }
};

// ceil_log2_f32() rounds a float with this exponent field up if its fraction is above this.
inline constexpr auto kStays = [] {
  std::array<float, 256> most{};
  for (int field = 0; field < 256; ++field) {
    std::uint32_t stays = 0, bumped = 0x800000;
    while (field > 0 && field < 254 && bumped - stays > 1) {
      const std::uint32_t middle = (stays + bumped) / 2;
      const float x = bits_float(static_cast<std::uint32_t>(field) << 23 | middle);
      (formats::ceil_log2_f32(x) > field - 127 ? bumped : stays) = middle;
    }
    most[static_cast<std::size_t>(field)] = static_cast<float>(field > 0 && field < 254 ? stays : bumped);
  }
  return most;
}();

template <class In, Elem e>
struct Mx {
  static constexpr Look kLook = Look::magnitude;
  static constexpr int kBits = formats::info(e).bits;
  Scaling scaling;
  explicit Mx(const QuantizeTask& task) : scaling(task.scaling) {}

  void params(Chunk& c, int g) const {
    const Floats amax = load(c.most + g);
    Ints odd = bits(amax) >= kInfinity;
    Ints code;
    if (scaling == Scaling::rceil) {
      constexpr float kMost = formats::max_value(e);
      const Floats d = amax / all(kMost);
      const Ints exponent = (bits(d) >> 23) & 0xFF, fraction = bits(d) & 0x7FFFFF;
      odd |= (exponent == 0) & (fraction != 0);
      const Ints up = to_float(fraction) > gather(kStays.data(), exponent);
      code = min_int(exponent - up, all(254));  // up is -1
    } else {
      Ints u = min_int(bits(amax), all(kInfinity));  // what is more is odd, and must not overflow here
      if (scaling == Scaling::even) u = (u + (1 << (22 - formats::info(e).mantissa_bits))) & -0x800000;
      code = (u >> 23) - formats::max_exponent(e);
      if (scaling == Scaling::ceil) code -= (u & 0x7FFFFF) != 0;
      code = max_int(min_int(code, all(254)), Ints{});
    }
    Ints multiplier = (254 - max_int(code, all(1))) << 23;
    multiplier = choose(code == 254, all(1 << 22), multiplier);  // 2^-127
    if (scaling == Scaling::rceil) multiplier = choose(code == 0, bits(all(1.0f)), multiplier);
    store(c.multiplier + g, floats(multiplier));
    store(c.scale_code + g, code);
    store(c.odd + g, odd);
  }
  Ints code(Floats x, const Lane& p) const {
    const Ints code = encode_float<e>(x * p.multiplier, bits(x));
    return kBits == 6 ? code & 0x3F : code;
  }
};

template <class In, Elem e>
struct Nvfp4 {
  static constexpr Look kLook = Look::magnitude;
  static constexpr int kBits = formats::info(e).bits;
  bool two_levels;
  float tensor_scale;
  explicit Nvfp4(const QuantizeTask& task)
      : two_levels(task.out->format.tensor_scale), tensor_scale(task.out->tensor_scale) {}

  void params(Chunk& c, int g) const {
    const Floats amax = load(c.most + g);
    const Floats q = amax / all(6.0f);
    const Floats ratio = two_levels ? q / all(tensor_scale) : q;
    const Floats clamped = min_float(max_float(ratio, all(0x1p-6f)), all(448.0f));
    const Ints code = encode_float<Elem::e4m3>(clamped, Ints{}) & 0xFF;
    const Floats scale = floats((code << 20) + (120 << 23));  // normal: not below 2^-6
    const Floats multiplier = all(two_levels ? 1.0f / tensor_scale : 1.0f) / scale;
    const bool plain = !two_levels || (tensor_scale > 0x1p-100f && tensor_scale < 0x1p100f);
    store(c.multiplier + g, multiplier);
    store(c.scale_code + g, code);
    store(c.odd + g, plain ? Ints{} : all(-1));
  }
  Ints code(Floats x, const Lane& p) const { return encode_float<e>(x * p.multiplier, bits(x)); }
};

template <class In, Elem e>
struct Float8 {
  static constexpr Look kLook = Look::magnitude;
  static constexpr int kBits = 8;
  explicit Float8(const QuantizeTask&) {}

  void params(Chunk& c, int g) const {
    const Floats amax = load(c.most + g);
    constexpr float kMost = formats::max_value(e);
    const Floats scale = select(amax == 0.0f, all(1.0f), In::round(amax / all(kMost)));
    store(c.scale + g, scale);
    store(c.multiplier + g, 1.0f / scale);
    store(c.odd + g, not_plain(scale));
  }
  Ints code(Floats x, const Lane& p) const { return encode_float<e>(divide(x, p.scale, p.multiplier), bits(x)); }
};

/// Symmetric and asymmetric integers: the code is the product, clamped and rounded, plus the zero point.
template <class In, bool symmetric, bool in_input_dtype>
struct Affine {
  static constexpr Look kLook = symmetric ? Look::magnitude : Look::range;
  static constexpr int kBits = 8;
  formats::BlockSpec format;
  Elem input;
  float least, most;
  explicit Affine(const QuantizeTask& task)
      : format(task.out->format),
        input(task.out->input),
        least(integer_least(format.element)),
        most(integer_most(format.element)) {}

  void params(Chunk& c, int g) const {
    Floats scale, zero = {};
    if constexpr (symmetric) {
      scale = affine_floor(format, input, In::round(load(c.most + g) / all((most - least) / 2.0f)));
    } else {
      const Floats down = min_float(load(c.least + g), Floats{}), up = max_float(load(c.most + g), Floats{});
      scale = affine_floor(format, input, In::round(In::round(up - down) / all(most - least)));
      const Floats steps = to_float(nearest(In::round(down / scale)));
      zero = min_float(max_float(In::round(all(least) - steps), all(least)), all(most));
    }
    store(c.scale + g, scale);
    store(c.multiplier + g, round_in<In>(in_input_dtype, 1.0f / scale));
    store(c.low + g, all(least) - zero);
    store(c.high + g, all(most) - zero);
    store(c.zero_point + g, zero);
    store(c.zero + g, nearest(zero));
    store(c.odd + g, Ints{});
  }
  Ints code(Floats x, const Lane& p) const {
    const Floats product = round_in<In>(in_input_dtype, x * p.multiplier);
    return nearest(min_float(max_float(product, p.low), p.high)) + p.zero;
  }
};

template <class In>
struct Tinygemm {
  static constexpr Look kLook = Look::range;
  static constexpr int kBits = 8;
  formats::BlockSpec format;
  Elem input;
  float most;
  explicit Tinygemm(const QuantizeTask& task)
      : format(task.out->format), input(task.out->input), most(integer_most(format.element)) {}

  void params(Chunk& c, int g) const {
    const Floats low = load(c.least + g), high = load(c.most + g);
    const Floats scale = affine_floor(format, input, In::round(In::round(high - low) / all(most)));
    const Floats half = In::round(scale * all((most + 1) / 2));
    const Floats zero = In::round(low + half);
    store(c.scale + g, scale);
    store(c.multiplier + g, 1.0f / scale);
    store(c.low + g, In::round(zero - half));
    store(c.zero_point + g, zero);
    store(c.odd + g, not_plain(scale));
  }
  Ints code(Floats x, const Lane& p) const {
    const Floats y = In::round(divide(In::round(x - p.low), p.scale, p.multiplier));
    return nearest(min_float(max_float(y, Floats{}), all(most)));
  }
};

/// A bias that is added, or a zero point in steps.
template <class In, bool shift>
struct FloatZero {
  static constexpr Look kLook = Look::range;
  static constexpr int kBits = 8;
  formats::BlockSpec format;
  Elem input;
  float most;
  explicit FloatZero(const QuantizeTask& task)
      : format(task.out->format), input(task.out->input), most(integer_most(format.element)) {}

  void params(Chunk& c, int g) const {
    Floats low = load(c.least + g), high = load(c.most + g);
    if (format.super_cols > 0) {  // its zero points cannot be positive
      low = min_float(low, Floats{});
      high = max_float(high, Floats{});
    }
    const Floats scale = affine_floor(format, input, In::round(In::round(high - low) / all(most)));
    store(c.scale + g, scale);
    store(c.zero_point + g, shift ? In::round(-low / scale) : low);
    // The zero point has the sign of a zero among the values: by the definition that of the first.
    store(c.odd + g, format.super_cols > 0 ? Ints{} : low == 0.0f);
  }
  Ints code(Floats x, const Lane& p) const {
    Floats y = shift ? x / p.scale + p.zero_point : (x - p.zero_point) / p.scale;
    if constexpr (!shift) y = select(p.scale == 0.0f, Floats{}, y);
    return nearest(min_float(max_float(y, Floats{}), all(most)));
  }
};

template <class In>
struct Absmax {
  static constexpr Look kLook = Look::magnitude;
  static constexpr int kBits = 8;
  float least, most;
  explicit Absmax(const QuantizeTask& task)
      : least(integer_least(task.out->format.element)), most(integer_most(task.out->format.element)) {}

  void params(Chunk& c, int g) const {
    const Floats scale = load(c.most + g) / all(most);
    store(c.scale + g, round_f16(scale));
    const Floats multiplier = select(scale == 0.0f, Floats{}, 1.0f / scale);
    store(c.multiplier + g, multiplier);
    store(c.odd + g, bits(multiplier) == kInfinity);
  }
  // Half away from zero: of the two neighbours of a tie the other one than half to even may take.
  Ints code(Floats x, const Lane& p) const {
    const Floats y = min_float(max_float(x * p.multiplier, all(least)), all(most));
    const Ints even = nearest(y);
    const Floats rest = y - to_float(even);
    return even - ((y > 0.0f) & (rest == 0.5f)) + ((y < 0.0f) & (rest == -0.5f));
  }
};

template <class In>
struct Sym8 {
  static constexpr Look kLook = Look::magnitude;
  static constexpr int kBits = 8;
  float least, most;
  explicit Sym8(const QuantizeTask& task)
      : least(integer_least(task.out->format.element)), most(integer_most(task.out->format.element)) {}

  void params(Chunk& c, int g) const {
    const Floats scale = max_float(load(c.most + g), all(1e-6f)) / all(8.0f);
    store(c.scale + g, scale);
    store(c.multiplier + g, 1.0f / scale);
    store(c.odd + g, not_plain(scale));
  }
  Ints code(Floats x, const Lane& p) const {
    return nearest(min_float(max_float(divide(x, p.scale, p.multiplier), all(least)), all(most)));
  }
};

template <class In>
struct Codebook {
  static constexpr Look kLook = Look::range;
  static constexpr int kBits = 8;
  std::array<float, 16> entry, offset;
  explicit Codebook(const QuantizeTask& task) {
    for (std::size_t i = 0; i < entry.size(); ++i) {
      entry[i] = task.out->codebook.as<float>()[i];
      offset[i] = 0.5f * entry[i] * entry[i];
    }
  }

  void params(Chunk& c, int g) const {
    store(c.scale + g, max_float(load(c.most + g), all(1e-9f)));
    store(c.odd + g, Ints{});
  }
  Ints code(Floats x, const Lane& p) const {
    const Floats y = x / p.scale;
    Ints best = {};
    Floats score = y * all(entry[0]) - all(offset[0]);
    for (int i = 1; i < 16; ++i) {
      const Floats other = y * all(entry[static_cast<std::size_t>(i)]) - all(offset[static_cast<std::size_t>(i)]);
      const Ints better = other > score;
      score = select(better, other, score);
      best = choose(better, all(i), best);
    }
    return best;
  }
};

}  // namespace lowp::kernels::cpu::LOWP_ISA
