#pragma once

#include <algorithm>
#include <vector>

#include "lowp/base/error.h"

namespace lowp {

/// The middle value; of an even count the mean of the middle two. Needs one value at least.
inline double median(std::vector<double> values) {
  LOWP_CHECK(!values.empty(), "median of nothing");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace lowp
