// What tests compare attention of e4m3 with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "lowp/kernels/ref/attention.h"

namespace lowp::kernels::ref {

/// attend_e4m3() without rounding the query and the weights.
inline std::vector<double> attend_exactly(std::span<const float> query, const CodedTokens& keys,
                                          const CodedTokens& values, std::int64_t first, std::int64_t last,
                                          const E4m3Attention& how) {
  const std::size_t dim = query.size();
  std::vector<double> weights, out(dim);
  double most = -INFINITY;
  for (auto t = static_cast<std::size_t>(first); t <= static_cast<std::size_t>(last); ++t) {
    double product = 0;
    for (std::size_t i = 0; i < dim; ++i) product += static_cast<double>(query[i]) * keys.codes[t * dim + i];
    weights.push_back(product * keys.scales[t] * how.scale);
    most = std::max(most, weights.back());
  }
  double sum = how.sink ? std::exp(*how.sink - most) : 0;
  for (std::size_t n = 0; n < weights.size(); ++n) {
    const std::size_t t = static_cast<std::size_t>(first) + n;
    const double weight = std::exp(weights[n] - most);
    sum += weight;
    for (std::size_t i = 0; i < dim; ++i) out[i] += weight * values.codes[t * dim + i] * values.scales[t];
  }
  for (double& v : out) v /= sum;
  return out;
}

}  // namespace lowp::kernels::ref
