// The sampler's rule the plain way, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lowp/engine/request.h"

namespace lowp::engine {

/// Where the chosen id's share of [0, 1) lies, by sorting everything; nothing if it should not come at all.
inline std::optional<std::pair<double, double>> plain_interval(const std::vector<float>& logits, const Sampling& s,
                                                               std::int32_t token) {
  std::vector<std::pair<double, std::int32_t>> all;  // minus the weight, id: likeliest first
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  for (std::size_t id = 0; id < logits.size(); ++id)
    all.emplace_back(-std::exp((static_cast<double>(logits[id]) - largest) / s.temperature), id);
  std::sort(all.begin(), all.end());
  if (s.top_k > 0) all.resize(std::min(all.size(), static_cast<std::size_t>(s.top_k)));
  double total = 0, sum = 0;
  for (const auto& [weight, id] : all) total -= weight;
  std::size_t count = 0;
  while (count < all.size() && sum < s.top_p * total) sum -= all[count++].first;
  all.resize(count);
  std::erase_if(all, [&](const auto& c) { return -c.first < s.min_p; });
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  total = sum = 0;
  for (const auto& [weight, id] : all) total -= weight;
  for (const auto& [weight, id] : all) {
    if (id == token) return std::pair{sum / total, (sum - weight) / total};
    sum -= weight;
  }
  return std::nullopt;
}

}  // namespace lowp::engine
