#include "lowp/engine/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lowp/base/bits.h"
#include "lowp/kernels/cpu/elementwise.h"

namespace lowp::engine {
namespace {

using kernels::cpu::kLogitBlock;

constexpr float kLeastLogit = std::numeric_limits<float>::lowest();

std::size_t blocks_of(std::span<const float> logits) {
  return static_cast<std::size_t>(ceil_div(static_cast<std::int64_t>(logits.size()), kLogitBlock));
}

// The logit that is `nats` times the temperature below the largest.
float below(float largest, double nats, double temperature) {
  return static_cast<float>(
      std::max(static_cast<double>(largest) - nats * temperature, static_cast<double>(kLeastLogit)));
}

}  // namespace

LogitRow::LogitRow(std::span<const float> logits) : logits_(logits), maxima_(blocks_of(logits)), largest_(kNever) {
  kernels::cpu::elementwise_kernels().block_maxima(logits.data(), static_cast<std::int64_t>(logits.size()),
                                                   maxima_.data());
  for (const float most : maxima_) {
    if (std::isnan(most)) {
      largest_ = most;
      return;
    }
    largest_ = std::max(largest_, most);
  }
}

std::int32_t LogitRow::likeliest() const {
  const auto block = std::find(maxima_.begin(), maxima_.end(), largest_) - maxima_.begin();
  return static_cast<std::int32_t>(std::find(logits_.begin() + block * kLogitBlock, logits_.end(), largest_) -
                                   logits_.begin());
}

std::vector<std::int32_t> LogitRow::at_least(float least) const {
  std::vector<std::int32_t> ids;
  for (std::size_t b = 0; b < maxima_.size(); ++b) {
    if (!(maxima_[b] >= least)) continue;
    const std::size_t begin = b * kLogitBlock, end = std::min(begin + kLogitBlock, logits_.size());
    for (std::size_t id = begin; id < end; ++id)
      if (logits_[id] >= least) ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

std::vector<std::int32_t> LogitRow::likeliest(std::size_t k) const {
  std::vector<std::int32_t> ids;
  if (k == 0) return ids;
  if (k <= maxima_.size()) {  // the k-th largest logit is at least the k-th largest of the blocks' maxima
    std::vector<float> order = maxima_;
    const auto kth = order.begin() + static_cast<std::ptrdiff_t>(k) - 1;
    std::nth_element(order.begin(), kth, order.end(), std::greater<>());
    ids = at_least(*kth);
  } else {
    ids.resize(logits_.size());
    std::iota(ids.begin(), ids.end(), 0);
  }
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(std::min(k, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = logits_[static_cast<std::size_t>(a)], y = logits_[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  });
  ids.erase(end, ids.end());
  return ids;
}

std::vector<LogitRow::Candidate> LogitRow::weigh(std::span<const std::int32_t> ids, double temperature) const {
  std::vector<Candidate> all;
  all.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const double distance = static_cast<double>(logits_[static_cast<std::size_t>(id)]) - static_cast<double>(largest_);
    if (const double weight = std::exp(distance / temperature); weight > 0) all.push_back({id, weight});
  }
  return all;
}

std::vector<float> LogitRow::block_weights(double temperature) const {
  std::vector<float> weights(maxima_.size());
  constexpr double kMost = 1e30;
  kernels::cpu::elementwise_kernels().block_exp_sums(
      logits_.data(), static_cast<std::int64_t>(logits_.size()), largest_,
      static_cast<float>(std::clamp(1 / temperature, 1 / kMost, kMost)), weights.data());
  return weights;
}

double LogitRow::total(std::span<const Candidate> candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  return sum;
}

// Leaves the fewest that together reach `weight`, the likeliest, in any order.
void LogitRow::keep_share(std::vector<Candidate>& all, double weight) {
  auto begin = all.begin(), end = all.end();  // what is before `begin` stays, what is after `end` goes
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, likelier);
    const double upper = total({begin, middle});
    if (upper >= weight) {
      end = middle;
    } else {
      weight -= upper;
      begin = middle;
    }
  }
  all.erase(end, all.end());
}

// The fewest that reach the share of all weight. They are looked for among those near the largest, then farther away.
std::vector<LogitRow::Candidate> LogitRow::nucleus(double temperature, double share) const {
  const std::vector<float> weights = block_weights(temperature);
  const double wanted = share * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<Candidate> all;
  for (const double nats : {4.0, 8.0, 16.0, 90.0}) {
    all = weigh(at_least(below(largest_, nats, temperature)), temperature);
    if (total(all) >= wanted) break;
  }
  keep_share(all, wanted);
  return all;
}

// The first of them at which the weights so far exceed the share `u` of all.
std::int32_t LogitRow::draw_from(std::span<const Candidate> from, double u) {
  const double limit = u * total(from);
  double sum = 0;
  for (const Candidate& c : from)
    if ((sum += c.weight) > limit) return c.id;
  return from.back().id;
}

// As draw_from(), first among blocks, then in one.
std::int32_t LogitRow::draw_from_all(double temperature, double u) const {
  const std::vector<float> weights = block_weights(temperature);
  std::vector<Candidate> blocks;
  for (std::size_t b = 0; b < weights.size(); ++b)
    if (weights[b] > 0) blocks.push_back({static_cast<std::int32_t>(b), static_cast<double>(weights[b])});
  const auto block = static_cast<std::size_t>(draw_from(blocks, u));
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0),
               before = std::accumulate(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(block), 0.0);
  std::vector<std::int32_t> ids(std::min<std::size_t>(kLogitBlock, logits_.size() - block * kLogitBlock));
  std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(block * kLogitBlock));
  const double within = (u * all - before) / static_cast<double>(weights[block]);
  return draw_from(weigh(ids, temperature), std::clamp(within, 0.0, 1.0));
}

std::int32_t LogitRow::draw(const Sampling& s, double u) const {
  std::vector<Candidate> all;
  const bool few = s.top_k > 0 && static_cast<std::size_t>(s.top_k) < logits_.size();
  if (few) {
    all = weigh(likeliest(static_cast<std::size_t>(s.top_k)), s.temperature);
    if (s.top_p < 1) keep_share(all, s.top_p * total(all));
  } else if (s.top_p < 1) {
    all = nucleus(s.temperature, s.top_p);
  } else if (s.min_p > 0) {
    constexpr double kRounding = 1e-3;  // nats; what is just below min_p goes in a moment
    all = weigh(at_least(below(largest_, kRounding - std::log(s.min_p), s.temperature)), s.temperature);
  } else {
    return draw_from_all(s.temperature, u);
  }
  if (s.min_p > 0)
    std::erase_if(all, [&](const Candidate& c) { return c.weight < s.min_p; });  // the likeliest weighs 1
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return draw_from(all, u);
}

}  // namespace lowp::engine
