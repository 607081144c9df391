#include "lowp/kernels/ref/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lowp/formats/codec.h"
#include "lowp/kernels/ref/attention_testing.h"

namespace lowp::kernels::ref {
namespace {

constexpr std::size_t kDim = 64;

// Normal numbers as codes of e4m3 and a scale a token, half of the tokens three times as large.
struct Coded {
  std::vector<float> codes, scales;
  operator CodedTokens() const { return {codes, scales}; }
};
Coded random_tokens(std::size_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Coded made;
  for (std::size_t t = 0; t < count; ++t) {
    std::vector<float> x(kDim);
    float amax = 0;
    for (float& v : x) {
      v = normal(rng) * (t % 2 ? 3.0f : 1.0f);
      amax = std::max(amax, std::fabs(v));
    }
    made.scales.push_back(amax / 448);
    for (const float v : x)
      made.codes.push_back(
          formats::decode(formats::Elem::e4m3, formats::encode(formats::Elem::e4m3, v / made.scales.back())));
  }
  return made;
}
std::vector<float> random_query(std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> query(kDim);
  for (float& v : query) v = normal(rng);
  return query;
}

TEST(RefE4m3Attention, OneTokenIsItsValue) {
  std::mt19937 rng(1);
  const Coded keys = random_tokens(5, rng), values = random_tokens(5, rng);
  const std::vector<float> out = attend_e4m3(random_query(rng), keys, values, 3, 3, {.scale = 0.125f});
  for (std::size_t i = 0; i < kDim; ++i)
    EXPECT_NEAR(out[i], values.codes[3 * kDim + i] * values.scales[3], 1e-5 * std::fabs(out[i]));
}

TEST(RefE4m3Attention, NearTheExactResult) {
  std::mt19937 rng(2);
  const Coded keys = random_tokens(500, rng), values = random_tokens(500, rng);
  const float sink = 1.5f;
  for (const bool with_sink : {false, true})
    for (const auto& [first, last] : {std::pair<std::int64_t, std::int64_t>{0, 499}, {100, 300}, {127, 128}}) {
      const E4m3Attention how{.scale = 0.0625f, .sink = with_sink ? &sink : nullptr};
      double error = 0, power = 0;
      for (int round = 0; round < 20; ++round) {
        const std::vector<float> query = random_query(rng);
        const std::vector<double> exact = attend_exactly(query, keys, values, first, last, how);
        const std::vector<float> out = attend_e4m3(query, keys, values, first, last, how);
        for (std::size_t i = 0; i < kDim; ++i) {
          error += std::pow(out[i] - exact[i], 2);
          power += exact[i] * exact[i];
        }
      }
      EXPECT_GE(10 * std::log10(power / error), 25) << first << " to " << last << (with_sink ? ", a sink" : "");
    }
}

// Whatever the scales of values are, weights keep their precision; values of nothing count in the sum.
TEST(RefE4m3Attention, ScalesOfValuesFarApart) {
  std::mt19937 rng(3);
  const Coded keys = random_tokens(4, rng);
  Coded values = random_tokens(4, rng);
  values.scales = {1e-30f, 1.0f, 1e-3f, 0.0f};
  const std::vector<float> query(kDim, 0.0f);
  const std::vector<float> out = attend_e4m3(query, keys, values, 0, 3, {});
  const std::vector<double> exact = attend_exactly(query, keys, values, 0, 3, {});
  for (std::size_t i = 0; i < kDim; ++i) EXPECT_NEAR(out[i], exact[i], 0.07 * std::fabs(exact[i]) + 0.01) << i;
}

}  // namespace
}  // namespace lowp::kernels::ref
