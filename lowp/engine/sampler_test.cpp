#include "lowp/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include "lowp/engine/sampler_testing.h"

namespace lowp::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const double kNan = std::nan("");

std::vector<float> logs(std::initializer_list<double> probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

// Share of each id in 20,000 draws.
std::map<int, double> shares(const std::vector<float>& logits, const Sampling& sampling) {
  constexpr int kDraws = 20000;
  std::map<int, double> out;
  const std::vector<std::int32_t> output(1);
  Sampling s = sampling;
  for (int i = 0; i < kDraws; ++i) {
    s.seed = static_cast<std::uint64_t>(i);
    out[sample(logits, s, {.output = output}).token] += 1.0 / kDraws;
  }
  return out;
}

Sample greedy(const std::vector<float>& logits, Sampling s = {}, const History& history = {}) {
  s.temperature = 0;
  return sample(logits, s, history);
}

TEST(Uniform, IsPhilox) {  // known answers of Random123's philox4x32-10
  EXPECT_EQ(uniform(0, 0), static_cast<double>(0x6627e8d5e169c58dull >> 11) * 0x1p-53);
}

TEST(Uniform, FillsTheUnitInterval) {
  for (const std::uint64_t seed : {0ull, 1ull, ~0ull}) {
    double sum = 0, squares = 0;
    for (std::uint64_t n = 0; n < 10000; ++n) {
      const double u = uniform(seed, n);
      ASSERT_TRUE(u >= 0 && u < 1);
      sum += u;
      squares += u * u;
    }
    EXPECT_NEAR(sum / 10000, 0.5, 0.01);
    EXPECT_NEAR(squares / 10000, 1.0 / 3, 0.01);
  }
}

TEST(Sample, GreedyTakesTheLowestIdOfATie) {
  EXPECT_EQ(greedy({1, 3, 2, 3}).token, 1);
  EXPECT_EQ(greedy({-kInf, -kInf, 0}).token, 2);
  EXPECT_EQ(greedy({5}).token, 0);
}

TEST(Sample, DrawsFollowTheDistribution) {
  const auto at_one = shares(logs({0.5, 0.3, 0.15, 0.05}), {});
  EXPECT_NEAR(at_one.at(0), 0.5, 0.015);
  EXPECT_NEAR(at_one.at(1), 0.3, 0.015);
  EXPECT_NEAR(at_one.at(2), 0.15, 0.015);
  EXPECT_NEAR(at_one.at(3), 0.05, 0.01);
  const auto sharp = shares(logs({0.5, 0.3, 0.2}), {.temperature = 0.5});  // squares: .25 .09 .04
  EXPECT_NEAR(sharp.at(0), 0.25 / 0.38, 0.015);
  EXPECT_NEAR(sharp.at(2), 0.04 / 0.38, 0.015);
}

TEST(Sample, TopKThenTopPThenMinP) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  const auto kept = [&](const Sampling& s) {
    std::vector<int> ids;
    for (const auto& [id, share] : shares(logits, s)) ids.push_back(id);
    return ids;
  };
  EXPECT_EQ(kept({.top_k = 1}), (std::vector{1}));
  EXPECT_EQ(kept({.top_k = 2}), (std::vector{1, 3}));
  EXPECT_EQ(kept({.top_k = 99}), (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_k = -1}), (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 1e-9}), (std::vector{1}));
  EXPECT_EQ(kept({.top_p = 0.69}), (std::vector{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.71}), (std::vector{1, 2, 3}));
  // Of the three likeliest, 0.4 and 0.3 are 0.78 of the probability: top-p sees what top-k left.
  EXPECT_EQ(kept({.top_k = 3, .top_p = 0.75}), (std::vector{1, 3}));
  EXPECT_EQ(kept({.min_p = 0.6}), (std::vector{1, 3}));
  EXPECT_EQ(kept({.min_p = 1}), (std::vector{1}));
}

TEST(Sample, DrawsAreThoseOfASortedVocabulary) {
  std::mt19937 random(4);
  for (const std::size_t vocab : {3, 256, 5000}) {
    for (const float deviation : {0.1f, 2.0f, 20.0f}) {
      std::normal_distribution<float> normal(0, deviation);
      std::vector<float> logits(vocab);
      for (float& x : logits) x = std::round(normal(random) * 64) / 64;  // with ties
      logits[vocab / 2] = -kInf;
      for (const Sampling& way : std::vector<Sampling>{{},
                                                       {.temperature = 0.3},
                                                       {.temperature = 4, .top_p = 0.5},
                                                       {.top_p = 0.95},
                                                       {.top_p = 0.999999},
                                                       {.top_k = 2},
                                                       {.top_k = 40, .top_p = 0.8},
                                                       {.top_k = 3000, .top_p = 0.9, .min_p = 0.01},
                                                       {.min_p = 0.05},
                                                       {.top_p = 0.9, .min_p = 0.2}})
        for (std::uint64_t seed = 0; seed < 30; ++seed) {
          Sampling s = way;
          s.seed = seed;
          const Sample chosen = sample(logits, s, {});
          const auto interval = plain_interval(logits, s, chosen.token);
          ASSERT_TRUE(interval) << vocab << " " << deviation << " id " << chosen.token << " top_p " << s.top_p;
          constexpr double kRounding = 1e-5;
          EXPECT_GE(uniform(seed, 0), interval->first - kRounding) << vocab << " " << deviation;
          EXPECT_LE(uniform(seed, 0), interval->second + kRounding) << vocab << " " << deviation;
        }
    }
  }
}

TEST(Sample, ExtremeTemperaturesAreLimits) {
  EXPECT_EQ(shares({1, 2, 1.999f}, {.temperature = 1e-300}).size(), 1u);
  for (const auto& [id, share] : shares({1, 2000, -3000}, {.temperature = 1e300}))
    EXPECT_NEAR(share, 1.0 / 3, 0.015) << id;
}

TEST(Sample, SeedsReproduceAndDiffer) {
  const std::vector<float> flat(1000);
  std::vector<std::int32_t> output;
  std::vector<std::int32_t> first, again, other;
  for (int i = 0; i < 20; ++i) {
    const History history{.output = output};
    first.push_back(sample(flat, {.seed = 7}, history).token);
    again.push_back(sample(flat, {.seed = 7}, history).token);
    other.push_back(sample(flat, {.seed = 8}, history).token);
    output.push_back(0);
  }
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

TEST(Sample, PenaltiesAsOpenAIAndTransformers) {
  const std::vector<std::int32_t> prompt = {0}, output = {1, 1};
  const History history{.prompt = prompt, .output = output};
  // Repetition: 4 / 2 and -1 * 2; ids count once.
  EXPECT_EQ(greedy({4, 2.5f, 2.1f}, {.repetition_penalty = 2}, history).token, 2);
  EXPECT_EQ(greedy({-1, -1.2f, -1.9f}, {.repetition_penalty = 2}, history).token, 2);
  EXPECT_EQ(greedy({3.9f, 5, 2.1f}, {.repetition_penalty = 2}, history).token, 1);
  // Presence once, frequency for each of two, neither for the prompt.
  EXPECT_EQ(greedy({0, 1.4f, 0.5f}, {.presence_penalty = 1}, history).token, 2);
  EXPECT_EQ(greedy({0, 1.9f, 0}, {.frequency_penalty = 1}, history).token, 0);
  EXPECT_EQ(greedy({0, 1.9f, 0}, {.presence_penalty = 1}, history).token, 1);
}

TEST(Sample, BiasMasksAndVocabulary) {
  EXPECT_EQ(greedy({1, 2, 3}, {.logit_bias = {{0, 100}, {77, 5}}}).token, 0);
  const std::vector<std::int32_t> forbidden = {2};
  EXPECT_EQ(greedy({1, 2, 3}, {}, {.forbidden = forbidden}).token, 1);
  EXPECT_EQ(greedy({1, 2, 3}, {}, {.vocab_limit = 2}).token, 1);
  std::vector<float> logits(40);
  logits[39] = 1;
  const std::vector<std::uint32_t> allowed = {0, 1u << 1};  // id 33
  EXPECT_EQ(greedy(logits, {.logit_bias = {{5, 100}}}, {.allowed = allowed}).token, 33);
}

TEST(Sample, WhatCannotBeSampledIsSaid) {
  const float nan = std::nanf("");
  EXPECT_NE(greedy({1, nan}).error, nullptr);
  EXPECT_NE(sample(std::vector<float>{nan, 1}, {}, {}).error, nullptr);
  EXPECT_NE(greedy({1, kInf}).error, nullptr);
  EXPECT_NE(greedy({-kInf, -kInf}).error, nullptr);
  EXPECT_NE(greedy({}).error, nullptr);
  const std::vector<std::uint32_t> none = {0};
  EXPECT_NE(greedy({1, 2}, {}, {.allowed = none}).error, nullptr);
  // A NaN that no token can have does not matter.
  EXPECT_EQ(greedy({1, nan}, {}, {.vocab_limit = 1}).token, 0);
}

TEST(Check, NamesTheParameter) {
  const auto name = [](const Sampling& s) { return check(s) ? check(s)->name : std::string(); };
  EXPECT_EQ(name({}), "");
  EXPECT_EQ(name({.temperature = 0,
                  .top_k = -1,
                  .top_p = 1e-9,
                  .min_p = 1,
                  .repetition_penalty = 1.3,
                  .presence_penalty = -2,
                  .frequency_penalty = 2,
                  .logit_bias = {{3, -100}}}),
            "");
  for (const double x : {-0.1, kNan, HUGE_VAL}) EXPECT_EQ(name({.temperature = x}), "temperature") << x;
  EXPECT_EQ(name({.top_k = -2}), "top_k");
  for (const double x : {-0.1, 0.0, 1.1, kNan}) EXPECT_EQ(name({.top_p = x}), "top_p") << x;
  for (const double x : {-0.1, 1.1, kNan}) EXPECT_EQ(name({.min_p = x}), "min_p") << x;
  for (const double x : {-1.0, 0.0, kNan, HUGE_VAL})
    EXPECT_EQ(name({.repetition_penalty = x}), "repetition_penalty") << x;
  for (const double x : {-2.1, 2.1, kNan}) EXPECT_EQ(name({.presence_penalty = x}), "presence_penalty") << x;
  for (const double x : {-2.1, 2.1, kNan}) EXPECT_EQ(name({.frequency_penalty = x}), "frequency_penalty") << x;
  EXPECT_EQ(name({.logit_bias = {{1, kNan}}}), "logit_bias");
  EXPECT_EQ(name({.logit_bias = {{-1, 1}}}), "logit_bias");
  EXPECT_NE(check({.temperature = -0.1})->message.find("found -0.1"), std::string::npos);
}

TEST(Score, IsTheLogSoftmax) {
  const Score s = score(logs({0.1, 0.4, 0.2, 0.3}), 2, 3);
  EXPECT_EQ(s.token, 2);
  EXPECT_NEAR(s.logprob, std::log(0.2), 1e-6);
  EXPECT_EQ(s.rank, 3);
  ASSERT_EQ(s.top.size(), 3u);
  EXPECT_EQ(s.top[0].first, 1);
  EXPECT_EQ(s.top[1].first, 3);
  EXPECT_NEAR(s.top[1].second, std::log(0.3), 1e-6);
  EXPECT_TRUE(score(logs({0.5, 0.5}), 1, 0).top.empty());
  EXPECT_EQ(score(logs({0.5, 0.5}), 1, 9).top.size(), 2u);
  const Score limited = score(logs({0.1, 0.2, 0.7}), 0, 9, 2);  // the rest keeps its probability, but is not listed
  EXPECT_EQ(limited.top.size(), 2u);
  EXPECT_NEAR(limited.logprob, std::log(0.1), 1e-6);
}

}  // namespace
}  // namespace lowp::engine
