// What all attention kernels share: the softmax of a row, and the loop over bands of rows. Compiled once for each
// instruction set, in its own namespace.
#pragma once

#include <cmath>

#include "lowp/kernels/attention_e4m3.h"
#include "lowp/kernels/cpu/attention.h"
#include "lowp/kernels/cpu/vector_body.h"

namespace lowp::kernels::cpu::LOWP_ISA {

// body.operator()<R>(first row): bands of four rows, then the rest.
template <typename Body>
inline void in_row_bands(std::int64_t rows, Body body) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) body.template operator()<4>(r);
  switch (rows - r) {
    case 3:
      return body.template operator()<3>(r);
    case 2:
      return body.template operator()<2>(r);
    case 1:
      return body.template operator()<1>(r);
    default:
      return;
  }
}

inline void store_weights(float* to, Float16 v) { store16(to, v); }
inline void store_weights(std::uint16_t* to, Float16 v) {
  typedef std::uint16_t Half16 __attribute__((vector_size(32)));
  const Half16 halves = __builtin_convertvector((Uint16)round_bf16(v) >> 16, Half16);
  std::memcpy(to, &halves, sizeof halves);
}

// To the nearest e4m3, ties to even, of magnitudes up to 448; NaN stays.
inline Float16 round_e4m3(Float16 v) {
  const Uint16 bits = (Uint16)v;
  const Float16 normal = (Float16)((bits + 0x7FFFFu + ((bits >> 20) & 1u)) & 0xFFF00000u);
  const Float16 step = (Float16)((bits & 0x80000000u) | 0x46800000u);  // 2^14, whose neighbours are 2^-9 apart
  const Int16 small = (Int16)(bits & 0x7FFFFFFFu) < 0x3C800000;        // below 2^-6
  const Float16 rounded = small ? (v + step) - step : normal;
  return v == v ? rounded : v;
}

template <typename Weight>
void to_e4m3(const float* in, std::int64_t count, std::int64_t padded, float factor, void* out) {
  auto* to = static_cast<Weight*>(out);
  for (std::int64_t i = 0; i < padded; i += 16) {
    const Float16 v = i + 16 <= count ? load16(in + i) : i < count ? load_part(in + i, count - i) : Float16{};
    const Float16 scaled = v * factor, most = Float16{} + 448.0f;
    store_weights(to + i, round_e4m3(scaled > most ? most : scaled < -most ? -most : scaled));
  }
}

// Operands as bits: the upper half of the number, or all of it.
template <typename Bits>
void from_e4m3(const std::uint8_t* in, std::int64_t count, void* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t magnitude = in[i] & 0x7Fu;
    std::uint32_t bits = (magnitude << 20) + (120u << 23);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    value = magnitude < 8 ? (value - 0x1p-7f) * 2 : value;  // no leading one
    std::memcpy(&bits, &value, sizeof bits);
    bits |= static_cast<std::uint32_t>(in[i] & 0x80u) << 24;
    static_cast<Bits*>(out)[i] = static_cast<Bits>(sizeof(Bits) == 2 ? bits >> 16 : bits);
  }
}

// Of a row whose tokens t, t + 1, ... have the scores score(t), of which those outside [begin, end) need be no numbers.
// weight(t, e, sum) makes the stored weights of the exponentials e, and adds to the sum what they count.
template <typename Weight, typename ScoreOf, typename WeightOf>
SoftmaxStats softmax_of(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, void* weights,
                        const ScoreOf& score, const WeightOf& weight) {
  const Int16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto visible = [&](std::int64_t t, Float16 value, float other) {
    const Int16 at = lane + static_cast<std::int32_t>(t);
    const Int16 inside = (at >= static_cast<std::int32_t>(begin)) & (at < static_cast<std::int32_t>(end));
    return inside ? value : Float16{} + other;
  };
  auto* out = static_cast<Weight*>(weights);
  const std::int64_t first = begin < end ? begin / 16 * 16 : padded;
  for (std::int64_t t = 0; t < first; t += 16) store_weights(out + t, Float16{});

  Float16 largest = Float16{} - INFINITY;
  for (std::int64_t t = first; t < end; t += 16) {
    const Float16 s = visible(t, score(t), -INFINITY);
    store16(scores + t, s);
    largest = s > largest ? s : largest;
  }
  float top = -INFINITY;
  for (int i = 0; i < 16; ++i) top = largest[i] > top ? largest[i] : top;

  Float16 sum = {};
  std::int64_t t = first;
  for (; t < end; t += 16) store_weights(out + t, weight(t, visible(t, exp16(load16(scores + t) - top), 0.0f), sum));
  for (; t < padded; t += 16) store_weights(out + t, Float16{});
  return {top, sum16(sum)};
}

template <typename Weight>
SoftmaxStats softmax(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, float scale,
                     const float* key_scales, const float* value_scales, void* weights) {
  return softmax_of<Weight>(
      scores, begin, end, padded, weights,
      [&](std::int64_t t) {
        const Float16 s = load16(scores + t) * scale;
        return key_scales ? s * load16(key_scales + t) : s;
      },
      [&](std::int64_t t, Float16 e, Float16& sum) {
        sum += e;
        return value_scales ? e * load16(value_scales + t) : e;
      });
}

template <typename Weight>
SoftmaxStats softmax_e4m3(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, float scale,
                          const float* key_scales, const float* value_logs, const float* value_inverses,
                          void* weights) {
  static_assert(kE4m3WeightBits == 8);
  return softmax_of<Weight>(
      scores, begin, end, padded, weights,
      [&](std::int64_t t) { return load16(scores + t) * scale * load16(key_scales + t) + load16(value_logs + t); },
      [&](std::int64_t t, Float16 e, Float16& sum) {
        sum += e * load16(value_inverses + t);
        return round_e4m3(e * 0x1p8f) * 0x1p-8f;
      });
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
