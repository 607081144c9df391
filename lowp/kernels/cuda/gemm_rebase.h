// Weights whose groups have scales of their own as e4m3 with one power of two a row, on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowp/tensor/quantized.h"

namespace lowp::kernels::cuda {

/// Whether e4m3 holds every code of a format, and one power of two more: MX formats but for e5m2's.
bool rebases(const formats::BlockSpec& format);

/// A weight [n, k] as scale[row] * e4m3. Codes are what the values are, rounded to nearest; the row's largest is in
/// (224, 448]. Values of MX formats down to 2^-14 of it are exact; below, 2^-10, which is 2^-18 of it, is the most that
/// one is off.
struct RebasedWeight {
  std::vector<std::uint8_t> codes;
  std::vector<float> scale;
  // The norm of what was rounded away in 128 of K of a row, as a part of the norm of those 128: where that is largest.
  double lost = 0;
};

/// More than that may not be lost where the operands shall stay the recipe's but for what the sums round anyway: the
/// tensor cores keep about 13 bits of a sum of e4m3 products while 128 of K go by.
inline constexpr double kMostLost = 0x1p-13;

/// Of a format that rebases(), or of nvfp4, whose values have a bit more than e4m3. nullopt, with the reason in *why,
/// where a row's power of two is beyond f32 or a scale is not a number.
std::optional<RebasedWeight> rebase_weight(const QuantizedMatrix& weight, std::string* why);

}  // namespace lowp::kernels::cuda
