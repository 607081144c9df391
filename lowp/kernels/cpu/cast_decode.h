// Values of codes, and what quantizing lost.
#pragma once

#include <algorithm>
#include <memory>

#include "lowp/kernels/cpu/cast_input.h"
#include "lowp/tensor/quantized.h"

namespace lowp::kernels::cpu::LOWP_ISA {

/// A format's numbers, ready for decoding.
struct Decoder {
  bool to_bf16;         // values are rounded to bf16, else not at all
  int bits;             // of an element
  float tensor_scale;   // 1 where there is none
  float middle;         // of tinygemm
  const float* values;  // of all codes; the codebook where there is one
};

inline Decoder decoder(const QuantizedMatrix& in, bool to_bf16) {
  const formats::Elem element = in.format.element;
  const bool table = in.format.rule == formats::Rule::codebook;
  return {to_bf16, formats::info(element).bits, in.format.tensor_scale ? in.tensor_scale : 1.0f,
          in.format.rule == formats::Rule::tinygemm ? (integer_most(element) + 1) / 2 : 0.0f,
          table ? in.codebook.as<float>() : formats::kNarrowValues[static_cast<std::size_t>(element)].data()};
}

/// Nearest bf16 of anything; NaN becomes quiet.
inline Floats round_bf16_or_nan(Floats x) {
  const Ints u = bits(x);
  return floats(choose((u & kMagnitude) > kInfinity, (u | 0x400000) & kHighHalf, bits(round_bf16(x))));
}

/// What a rule does with the value q of a code; Rule::mx stands for all that multiply by the scale.
template <formats::Rule rule>
Floats decoded(const Decoder& d, Floats q, Floats scale, Floats zero_point) {
  using formats::Rule;
  const auto rounded = [&](Floats x) { return d.to_bf16 ? round_bf16_or_nan(x) : x; };
  if constexpr (rule == Rule::plain) return rounded(q);
  if constexpr (rule == Rule::nvfp4) return rounded(q * (d.tensor_scale * scale));
  if constexpr (rule == Rule::asymmetric) return rounded((q - zero_point) * scale);
  if constexpr (rule == Rule::tinygemm) return rounded(rounded((q - d.middle) * scale) + zero_point);
  if constexpr (rule == Rule::bias) return rounded(q * scale + zero_point);
  if constexpr (rule == Rule::shift) return rounded(rounded(q - zero_point) * scale);
  return rounded(q * scale);
}

/// How codes become numbers.
enum class From { signed_byte, unsigned_byte, table16, nibble_table16, table256, word_bf16, word_f16 };

constexpr int code_bits(From from) {
  return from == From::nibble_table16 ? 4 : from == From::word_bf16 || from == From::word_f16 ? 16 : 8;
}

/// 2 * kLanes values of the codes at `p`.
template <From from>
Pair code_values(const Decoder& d, const char* p) {
  if constexpr (from == From::word_bf16) return Bf16Input::pair(p);
  if constexpr (from == From::word_f16) return F16Input::pair(p);
  if constexpr (from == From::nibble_table16) {
    const Ints bytes = load_low_bytes(p);
    return {lookup16(d.values, bytes), lookup16(d.values, bytes >> 4)};
  }
  const Ints words = load_low_words(p);
  const int unused = 32 - d.bits;
  if constexpr (from == From::signed_byte)
    return {to_float((words << unused) >> unused), to_float(((words >> 8) << unused) >> unused)};
  const Ints even = words & 0xFF, odd = words >> 8;
  if constexpr (from == From::unsigned_byte) {
    const std::int32_t mask = (1 << d.bits) - 1;
    return {to_float(even & mask), to_float(odd & mask)};
  }
  if constexpr (from == From::table16) return {lookup16(d.values, even), lookup16(d.values, odd)};
  return {gather(d.values, even), gather(d.values, odd)};
}

/// Parameters of the groups of one row.
struct RowParams {
  std::unique_ptr<float[]> scale, zero_point;
  explicit RowParams(const QuantizedMatrix& in) : scale(new float[size(in)]()), zero_point(new float[size(in)]()) {}
  void load_row(const QuantizedMatrix& in, std::int64_t row) {
    const std::int64_t groups = in.format.scale_cols(in.k);
    if (!in.format.has_scale()) return;
    const std::int64_t at = (in.format.group_rows == 0 ? 0 : row / in.format.group_rows) * groups;
    if (formats::info(in.format.scale).bits > 8) {
      std::memcpy(scale.get(), in.scale.as<float>() + at, static_cast<std::size_t>(groups) * 4);
    } else {
      const float* values = formats::kNarrowValues[static_cast<std::size_t>(in.format.scale)].data();
      for (std::int64_t g = 0; g < groups; ++g) scale[g] = values[in.scale.as<std::uint8_t>()[at + g]];
    }
    if (in.format.zero_point == formats::ZeroPoint::integer)
      for (std::int64_t g = 0; g < groups; ++g) zero_point[g] = in.zero_point.as<std::int8_t>()[at + g];
    if (in.format.zero_point == formats::ZeroPoint::floating)
      std::memcpy(zero_point.get(), in.zero_point.as<float>() + at, static_cast<std::size_t>(groups) * 4);
  }

 private:
  static std::size_t size(const QuantizedMatrix& in) {
    return static_cast<std::size_t>(in.format.scale_cols(in.k) + kLanes);  // vectors may read past the last group
  }
};

/// Calls take(column, count, values) for one row, 2 * kLanes columns at a time; fewer at the end of a group that is no
/// multiple of them.
template <formats::Rule rule, From from, class Take>
void decode_row(const Decoder& d, const QuantizedMatrix& in, const RowParams& params, std::int64_t row,
                const Take& take) {
  constexpr std::int64_t kStep = 2 * kLanes;
  constexpr int kCodeBits = code_bits(from);
  const std::int64_t k = in.k, width = !in.format.has_scale() || in.format.group_cols == 0 ? k : in.format.group_cols;
  const char* codes = reinterpret_cast<const char*>(in.codes.bytes().data()) + row * k * kCodeBits / 8;
  const auto step = [&](std::int64_t column, std::int64_t count, const char* at, Floats scale, Floats zero) {
    const Pair q = code_values<from>(d, at);
    take(column, count, Pair{decoded<rule>(d, q.even, scale, zero), decoded<rule>(d, q.odd, scale, zero)});
  };
  if (width > 1 && width < kStep && kStep % width == 0 && k % kStep == 0) {
    Ints group;
    for (int i = 0; i < kLanes; ++i) group[i] = static_cast<std::int32_t>(2 * i / width);
    for (std::int64_t c = 0; c < k; c += kStep) {
      const std::int64_t g = c / width;
      step(c, kStep, codes + c * kCodeBits / 8, permute(load(params.scale.get() + g), group),
           permute(load(params.zero_point.get() + g), group));
    }
    return;
  }
  for (std::int64_t begin = 0, g = 0; begin < k; begin += width, ++g) {
    const Floats scale = all(params.scale[static_cast<std::size_t>(g)]);
    const Floats zero = all(params.zero_point[static_cast<std::size_t>(g)]);
    const std::int64_t end = std::min(begin + width, k);
    std::int64_t c = begin;
    for (; c + kStep <= end; c += kStep) step(c, kStep, codes + c * kCodeBits / 8, scale, zero);
    if (c < end) {
      char staged[kStep * 2] = {};
      std::memcpy(staged, codes + c * kCodeBits / 8, static_cast<std::size_t>(((end - c) * kCodeBits + 7) / 8));
      step(c, end - c, staged, scale, zero);
    }
  }
}

/// Calls body<rule, source>() for a format that is not f32.
template <class Body>
void with_decoding(const formats::BlockFormat& format, const Body& body) {
  using formats::Rule;
  const bool nibbles = format.two_codes_a_byte();
  switch (format.rule) {
    case Rule::plain:
      if (format.element == formats::Elem::bf16) return body.template operator()<Rule::plain, From::word_bf16>();
      if (format.element == formats::Elem::f16) return body.template operator()<Rule::plain, From::word_f16>();
      return nibbles ? body.template operator()<Rule::plain, From::nibble_table16>()
                     : body.template operator()<Rule::plain, From::table256>();
    case Rule::mx:
    case Rule::float8:
      return nibbles ? body.template operator()<Rule::mx, From::nibble_table16>()
                     : body.template operator()<Rule::mx, From::table256>();
    case Rule::nvfp4:
    case Rule::nvfp4_training:
      return body.template operator()<Rule::nvfp4, From::nibble_table16>();
    case Rule::symmetric:
    case Rule::absmax:
    case Rule::sym8:
      return body.template operator()<Rule::mx, From::signed_byte>();
    case Rule::asymmetric:
      return body.template operator()<Rule::asymmetric, From::signed_byte>();
    case Rule::tinygemm:
      return body.template operator()<Rule::tinygemm, From::unsigned_byte>();
    case Rule::bias:
      return body.template operator()<Rule::bias, From::unsigned_byte>();
    case Rule::shift:
      return body.template operator()<Rule::shift, From::unsigned_byte>();
    case Rule::codebook:
      return body.template operator()<Rule::mx, From::table16>();
  }
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
