// Tokens chosen and scored on the GPU against the sampler on the same logits.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lowp/engine/sampler.h"
#include "lowp/engine/sampler_testing.h"
#include "lowp/models/cuda_choice.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp {
namespace {

using engine::History;
using engine::Sampling;

constexpr double kRounding = 1e-5;  // of probabilities: weights in f32

class CudaSample : public ops::CudaTest {
 protected:
  static std::vector<float> floats(std::span<const std::uint16_t> x) {
    std::vector<float> values;
    for (const std::uint16_t v : x) values.push_back(ops::from_bf16(v));
    return values;
  }
};

struct Asked {
  Sampling sampling;
  History history;
};

// The ids of `asked` on the device, all for the same row 1 of three, and the number of those that are not the
// sampler's. Such a draw must be at most kRounding of probability beside its id's share.
int compare(models::CudaChoice& choice, const void* logits, std::span<const float> row, std::int64_t limit,
            std::span<const Asked> asked, const kernels::cuda::Stream& stream) {
  std::vector<std::vector<kernels::LogitEdit>> edits;
  std::vector<models::TokenChoice> choices;
  for (const Asked& a : asked) edits.push_back(logit_edits(a.sampling, a.history, static_cast<std::size_t>(limit)));
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const Sampling& s = asked[i].sampling;
    choices.push_back({.temperature = s.temperature,
                       .top_k = s.top_k,
                       .top_p = s.top_p,
                       .min_p = s.min_p,
                       .uniform = engine::uniform(s.seed, asked[i].history.output.size()),
                       .edits = edits[i],
                       .allowed = asked[i].history.allowed});
  }
  const std::vector<std::int32_t> rows(asked.size(), 1), ids = choice.choose(logits, rows, choices, limit, stream);
  int other = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto& [s, history] = asked[i];
    const engine::Sample expected = sample(row, s, history);
    EXPECT_EQ(expected.error != nullptr, ids[i] < 0);
    if (expected.error || ids[i] == expected.token) continue;
    ++other;
    std::vector<float> changed(row.begin(), row.begin() + limit);
    for (const auto& edit : edits[i])
      changed[static_cast<std::size_t>(edit.id)] = kernels::edited(changed[static_cast<std::size_t>(edit.id)], edit);
    for (std::size_t id = 0; id < changed.size(); ++id)
      if (!history.allowed.empty() && !(history.allowed[id / 32] >> (id % 32) & 1)) changed[id] = -INFINITY;
    const auto share = s.temperature > 0 ? engine::plain_interval(changed, s, ids[i]) : std::nullopt;
    EXPECT_TRUE(share) << "id " << ids[i] << " instead of " << expected.token << ", temperature " << s.temperature
                       << " top_k " << s.top_k << " top_p " << s.top_p << " min_p " << s.min_p;
    if (!share) continue;
    EXPECT_GE(choices[i].uniform, share->first - kRounding);
    EXPECT_LE(choices[i].uniform, share->second + kRounding);
  }
  return other;
}

TEST_F(CudaSample, DrawsAreTheSamplers) {
  int draws = 0, other = 0;
  for (const std::int64_t vocab : {8, 1000, 8192, 128256})
    for (const float deviation : {0.1f, 2.0f, 20.0f}) {
      const std::int64_t limit = vocab - 3;
      ops::Bf16Values logits = random(3 * vocab, deviation);
      auto* const own = logits.data() + vocab;
      own[vocab - 1] = ops::to_bf16(1000);  // beyond the limit
      own[vocab / 2] = ops::to_bf16(-INFINITY);
      const std::vector<float> row =
          floats(std::span(logits).subspan(static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab)));
      const void* on_device = upload(logits);
      std::vector<std::int32_t> prompt, output;
      for (int i = 0; i < 200; ++i) prompt.push_back(static_cast<std::int32_t>(rng() % static_cast<unsigned>(vocab)));
      for (int i = 0; i < 90; ++i) output.push_back(static_cast<std::int32_t>(rng() % static_cast<unsigned>(limit)));
      std::vector<std::uint32_t> words(static_cast<std::size_t>(limit + 31) / 32);
      for (auto& word : words) word = static_cast<std::uint32_t>(rng() & rng());
      words[0] |= 2;
      const std::vector<std::int32_t> forbidden = {0, static_cast<std::int32_t>(limit / 2)};
      std::vector<Asked> asked;
      for (const Sampling& way : std::vector<Sampling>{{},
                                                       {.temperature = 0},
                                                       {.temperature = 0.3},
                                                       {.temperature = 1e-300},
                                                       {.temperature = 1e300},
                                                       {.temperature = 4, .top_p = 0.5},
                                                       {.top_p = 0.95},
                                                       {.top_p = 1e-9},
                                                       {.top_p = 0.999999},
                                                       {.top_k = 1},
                                                       {.top_k = 2},
                                                       {.top_k = 40, .top_p = 0.8},
                                                       {.top_k = 3000, .top_p = 0.9, .min_p = 0.01},
                                                       {.min_p = 0.05},
                                                       {.top_p = 0.9, .min_p = 0.2}})
        for (std::uint64_t seed = 0; seed < 6; ++seed) {
          Sampling s = way;
          s.seed = seed;
          asked.push_back({s, {.output = output, .vocab_limit = limit}});
          s.repetition_penalty = 1.3;
          s.presence_penalty = 0.5;
          s.frequency_penalty = -0.25;
          s.logit_bias = {{3, 2.5}, {1, -100}};
          asked.push_back({s, {.prompt = prompt, .output = output, .forbidden = forbidden, .vocab_limit = limit}});
          asked.push_back({way, {.output = output, .forbidden = forbidden, .allowed = words, .vocab_limit = limit}});
        }
      models::CudaChoice choice(vocab);
      for (std::size_t begin = 0; begin < asked.size(); begin += models::CudaChoice::kMostRows) {
        const auto part =
            std::span(asked).subspan(begin, std::min<std::size_t>(asked.size() - begin, models::CudaChoice::kMostRows));
        other += compare(choice, on_device, row, limit, part, *stream);
        draws += static_cast<int>(part.size());
      }
    }
  std::printf("%d of %d draws are not the sampler's\n", other, draws);
  EXPECT_LE(other, draws / 200);
}

TEST_F(CudaSample, WhatCannotBeChosenIsNotChosen) {
  const std::int64_t vocab = 4096;
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    ops::Bf16Values logits = random(3 * vocab);
    for (std::int64_t i = 0; i < vocab; ++i)
      if (i == 70 || wrong < 0) logits[static_cast<std::size_t>(vocab + i)] = ops::to_bf16(wrong);
    const std::vector<float> row = floats(std::span(logits).subspan(4096, 4096));
    const std::vector<std::uint32_t> only_zero = {1};
    std::vector<Asked> asked;
    for (const double temperature : {0.0, 1.0})
      for (const double top_p : {1.0, 0.5})
        for (const double bias : {0.0, 1.0}) {
          Sampling s{.temperature = temperature, .top_p = top_p};
          if (bias != 0) s.logit_bias = {{5, bias}};
          asked.push_back({s, {}});
          asked.push_back({s, {.allowed = only_zero}});
        }
    models::CudaChoice choice(vocab);
    EXPECT_EQ(compare(choice, upload(logits), row, vocab, asked, *stream), 0);
  }
}

TEST_F(CudaSample, ScoresAreTheSamplers) {
  for (const std::int64_t vocab : {16, 5000, 128256}) {
    const std::int64_t limit = vocab - 5;
    const ops::Bf16Values logits = random(4 * vocab, 3);
    const void* on_device = upload(logits);
    std::vector<std::int32_t> rows;
    std::vector<models::TokenQuestion> questions;
    for (int i = 0; i < 40; ++i) {
      rows.push_back(i % 4);
      questions.push_back(
          {.token = static_cast<std::int32_t>(rng() % static_cast<unsigned>(limit)), .top = i % 3 ? i / 2 : 0});
    }
    questions[7].top = 1024;
    models::CudaChoice choice(vocab);
    const auto found = choice.score(on_device, rows, questions, limit, *stream);
    for (std::size_t i = 0; i < questions.size(); ++i) {
      const auto row =
          floats(std::span(logits).subspan(static_cast<std::size_t>(rows[i] * vocab), static_cast<std::size_t>(vocab)));
      const engine::Score expected = engine::score(row, questions[i].token, questions[i].top, limit);
      EXPECT_EQ(found[i].token, expected.token);
      EXPECT_EQ(found[i].rank, expected.rank);
      EXPECT_NEAR(found[i].logprob, expected.logprob, 1e-5);
      ASSERT_EQ(found[i].top.size(), expected.top.size()) << vocab << " " << i;
      for (std::size_t k = 0; k < expected.top.size(); ++k) {
        EXPECT_EQ(found[i].top[k].first, expected.top[k].first) << vocab << " " << i << " " << k;
        EXPECT_NEAR(found[i].top[k].second, expected.top[k].second, 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace lowp
