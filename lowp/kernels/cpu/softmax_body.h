// What all attention kernels share: the softmax of a row, and the loop over bands of rows. Compiled once for each
// instruction set, in its own namespace.
#pragma once

#include <cmath>

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

// The scores outside [begin, end) are not read as numbers.
template <typename Weight>
SoftmaxStats softmax(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, float scale,
                     const float* key_scales, const float* value_scales, void* weights) {
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
    Float16 s = load16(scores + t) * scale;
    if (key_scales) s *= load16(key_scales + t);
    s = visible(t, s, -INFINITY);
    store16(scores + t, s);
    largest = s > largest ? s : largest;
  }
  float top = -INFINITY;
  for (int i = 0; i < 16; ++i) top = largest[i] > top ? largest[i] : top;

  Float16 sum = {};
  std::int64_t t = first;
  for (; t < end; t += 16) {
    Float16 w = visible(t, exp16(load16(scores + t) - top), 0.0f);
    sum += w;
    if (value_scales) w *= load16(value_scales + t);
    store_weights(out + t, w);
  }
  for (; t < padded; t += 16) store_weights(out + t, Float16{});
  return {top, sum16(sum)};
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
