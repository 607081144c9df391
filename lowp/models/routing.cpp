#include "lowp/models/routing.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/routing.h"

namespace lowp::models {
namespace {

// Scores to probabilities.
void softmax(const float* scores, std::span<float> p) {
  const float largest = *std::max_element(scores, scores + p.size());
  std::array<float, kernels::kRouterLanes> sums{};
  for (std::size_t e = 0; e < p.size(); ++e) sums[e % sums.size()] += p[e] = kernels::router_exp(scores[e], largest);
  for (std::size_t half = sums.size() / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  for (float& value : p) value /= sums[0];
}

}  // namespace

void route(const Config& config, formats::Elem compute, std::span<const float> scores, std::vector<Choice>& choices) {
  const std::int64_t experts = config.num_experts, top = config.experts_per_token,
                     rows = static_cast<std::int64_t>(scores.size()) / experts;
  choices.resize(static_cast<std::size_t>(rows * top));
  const auto round = [&](float weight) {
    return config.round_expert_weights ? formats::round_to(compute, weight) : weight;
  };
  constexpr std::int64_t kGrain = 1 << 10;  // scores worth a chunk of the loop
  parallel_for(rows, std::max<std::int64_t>(1, kGrain / experts), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> p(static_cast<std::size_t>(experts));
    std::vector<std::int64_t> order(static_cast<std::size_t>(experts));
    for (std::int64_t r = begin; r < end; ++r) {
      softmax(scores.data() + r * experts, p);
      std::iota(order.begin(), order.end(), std::int64_t{0});
      std::partial_sort(order.begin(), order.begin() + top, order.end(),
                        [&](std::int64_t a, std::int64_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
      float kept = 0;
      for (std::int64_t i = 0; i < top; ++i) kept += p[order[i]];
      for (std::int64_t i = 0; i < top; ++i) {
        const float weight = p[order[i]];
        choices[static_cast<std::size_t>(r * top + i)] = {order[i],
                                                          round(config.norm_topk_prob ? weight / kept : weight)};
      }
    }
  });
}

}  // namespace lowp::models
