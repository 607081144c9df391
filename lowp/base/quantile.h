#pragma once

#include <algorithm>
#include <vector>

#include "lowp/base/error.h"

namespace lowp {

/// The q-quantile, 0 <= q <= 1, interpolated between neighbours. Needs one value at least.
inline double quantile(std::vector<double> values, double q) {
  LOWP_CHECK(!values.empty(), "quantile of nothing");
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (at - static_cast<double>(low)) * (values[high] - values[low]);
}

/// The middle value; of an even count the mean of the middle two. Needs one value at least.
inline double median(std::vector<double> values) {
  LOWP_CHECK(!values.empty(), "median of nothing");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace lowp
