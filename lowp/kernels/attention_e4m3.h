// Attention whose products are of e4m3: the numbers that all backends share. kernels/ref/attention.h is the arithmetic.
#pragma once

#include "lowp/base/bits.h"
#include "lowp/formats/divide.h"

namespace lowp::kernels {

/// Tokens whose weights and products are over the same largest exponent of a row; they begin at multiples of it.
inline constexpr int kE4m3KeyTile = 128;

/// The largest weight of a row, as a power of two: e4m3 ends at 448, and what is below 2^-17 of the largest is zero.
inline constexpr float kE4m3WeightBits = 8;

/// Smaller scales of values are taken for this one: logarithm and inverse must be finite.
inline constexpr float kE4m3LeastValueScale = 0x1p-80f;

/// What queries whose largest magnitude is `amax` are multiplied by before they are rounded to e4m3, and the scale that
/// their codes are over (torchao-spec 6).
struct E4m3Scales {
  float up, down;
};
LOWP_HD constexpr E4m3Scales e4m3_scales(float amax) {
  return amax <= 1e-12f ? E4m3Scales{1.0f, 1.0f}
                        : E4m3Scales{formats::divide(448.0f, amax), formats::divide(amax, 448.0f)};
}

}  // namespace lowp::kernels
