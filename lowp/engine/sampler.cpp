#include "lowp/engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "lowp/engine/candidates.h"

namespace lowp::engine {
namespace {

std::size_t limited(std::size_t count, std::int64_t vocab_limit) {
  return vocab_limit > 0 ? std::min(count, static_cast<std::size_t>(vocab_limit)) : count;
}

// Ids of text that is not the model's (a prompt with a higher id than the logits have) are skipped.
template <typename Visit>
void for_ids(std::span<const std::int32_t> ids, std::size_t count, Visit visit) {
  for (const std::int32_t id : ids)
    if (id >= 0 && static_cast<std::size_t>(id) < count) visit(static_cast<std::size_t>(id));
}

void mask(std::span<float> logits, std::span<const std::uint32_t> allowed) {
  if (allowed.empty()) return;
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (id / 32 >= allowed.size() || !(allowed[id / 32] >> (id % 32) & 1)) logits[id] = kNever;
}

}  // namespace

double uniform(std::uint64_t seed, std::uint64_t n) {
  std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32), 0, 0};
  std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * x[0], b = std::uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return static_cast<double>((std::uint64_t{x[0]} << 32 | x[1]) >> 11) * 0x1p-53;
}

std::optional<BadParameter> check(const Sampling& s) {
  const auto bad = [](const char* name, const char* expected, double found) {
    return BadParameter{name, fmt::format("{}: expected {}, found {}", name, expected, found)};
  };
  const auto within = [](double x, double low, double high) { return x >= low && x <= high; };
  constexpr double kLarge = std::numeric_limits<double>::max();
  if (!within(s.temperature, 0, kLarge)) return bad("temperature", "a number of at least 0", s.temperature);
  if (s.top_k < -1) return bad("top_k", "a count, or 0 or -1 for all", static_cast<double>(s.top_k));
  if (!within(s.top_p, 0, 1) || s.top_p == 0) return bad("top_p", "a number above 0 and up to 1", s.top_p);
  if (!within(s.min_p, 0, 1)) return bad("min_p", "a number from 0 to 1", s.min_p);
  if (!within(s.repetition_penalty, 1e-30, 1e30))
    return bad("repetition_penalty", "a number above 0", s.repetition_penalty);
  if (!within(s.presence_penalty, -2, 2)) return bad("presence_penalty", "a number from -2 to 2", s.presence_penalty);
  if (!within(s.frequency_penalty, -2, 2))
    return bad("frequency_penalty", "a number from -2 to 2", s.frequency_penalty);
  for (const auto& [id, bias] : s.logit_bias) {
    if (id < 0) return bad("logit_bias", "token ids of at least 0", id);
    if (!within(bias, -100, 100)) return bad("logit_bias", "biases from -100 to 100", bias);
  }
  return std::nullopt;
}

std::vector<kernels::LogitEdit> logit_edits(const Sampling& s, const History& history, std::size_t count) {
  std::vector<kernels::LogitEdit> edits;
  std::unordered_map<std::size_t, std::size_t> place;
  const auto edit_of = [&](std::size_t id) -> kernels::LogitEdit& {
    const auto [at, fresh] = place.try_emplace(id, edits.size());
    if (fresh) edits.push_back({.id = static_cast<std::int32_t>(id)});
    return edits[at->second];
  };
  if (s.repetition_penalty != 1) {
    const auto once = [&](std::size_t id) { edit_of(id).penalty = static_cast<float>(s.repetition_penalty); };
    for_ids(history.prompt, count, once);
    for_ids(history.output, count, once);
  }
  if (s.frequency_penalty != 0 || s.presence_penalty != 0) {
    std::unordered_map<std::size_t, int> counts;
    for_ids(history.output, count, [&](std::size_t id) { ++counts[id]; });
    for (const auto& [id, times] : counts)
      edit_of(id).minus = static_cast<float>(s.frequency_penalty * times + s.presence_penalty);
  }
  for (const auto& [id, bias] : s.logit_bias)
    if (id >= 0 && static_cast<std::size_t>(id) < count)
      edit_of(static_cast<std::size_t>(id)).plus += static_cast<float>(bias);
  for_ids(history.forbidden, count, [&](std::size_t id) { edit_of(id).plus = kNever; });
  return edits;
}

Sample sample(std::span<const float> raw, const Sampling& s, const History& history) {
  const std::span<const float> logits = raw.first(limited(raw.size(), history.vocab_limit));
  LogitRow row(logits);
  if (std::isnan(row.largest())) return {.error = "the model's logits are NaN"};
  const std::vector<kernels::LogitEdit> edits = logit_edits(s, history, logits.size());
  std::vector<float> changed;
  if (!edits.empty() || !history.allowed.empty()) {
    changed.assign(logits.begin(), logits.end());
    for (const kernels::LogitEdit& edit : edits) {
      float& logit = changed[static_cast<std::size_t>(edit.id)];
      logit = kernels::edited(logit, edit);
    }
    mask(changed, history.allowed);
    row = LogitRow(changed);
  }
  if (row.largest() == kNever) return {.error = "no token may come next"};
  if (row.largest() == -kNever) return {.error = "a logit is infinite"};
  if (s.temperature == 0) return {.token = row.likeliest()};
  return {.token = row.draw(s, uniform(s.seed, history.output.size()))};
}

Score score(std::span<const float> logits, std::int32_t token, int top, std::int64_t vocab_limit) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - static_cast<double>(largest));
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logprob = [&](std::int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum);
  };

  Score result{.token = token, .logprob = logprob(token)};
  const std::span<const float> real = logits.first(limited(logits.size(), vocab_limit));
  result.rank +=
      std::count_if(real.begin(), real.end(), [&](float x) { return x > logits[static_cast<std::size_t>(token)]; });
  if (top <= 0) return result;
  for (const std::int32_t id : LogitRow(real).likeliest(static_cast<std::size_t>(top)))
    result.top.emplace_back(id, logprob(id));
  return result;
}

}  // namespace lowp::engine
