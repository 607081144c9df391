#include "bench/sample_cases.h"

#include <algorithm>
#include <memory>
#include <random>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/engine/sampler.h"

namespace lowp::bench {
namespace {

constexpr std::int64_t kVocabularies[] = {128256, 262144};

const SampleWay kWays[] = {
    {"greedy", {.temperature = 0}},
    {"temperature", {}},
    {"top_k", {.top_k = 50}},
    {"top_p", {.top_p = 0.9}},
    {"top_k_top_p", {.top_k = 50, .top_p = 0.9}},
    {"min_p", {.min_p = 0.05}},
    {"temperature_flat", {}, true},
    {"top_p_flat", {.top_p = 0.9}, true},
};

}  // namespace

std::vector<float> sample_logits(std::int64_t vocab, bool flat) {
  constexpr float kDeviation = 2, kLifted = 12;
  constexpr int kLikely = 64;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, kDeviation);
  std::vector<float> all(static_cast<std::size_t>(vocab));
  for (float& x : all) x = normal(random);
  if (flat) return all;
  std::uniform_int_distribution<std::size_t> any(0, all.size() - 1);
  for (int i = 0; i < kLikely; ++i) all[any(random)] += kLifted;
  return all;
}

std::vector<SampleWay> sample_ways(const Selection& selection) {
  std::vector<SampleWay> ways;
  std::vector<std::string> known;
  for (const SampleWay& way : kWays) known.emplace_back(way.name);
  for (const std::string& name : selection.recipes.empty() ? known : selection.recipes) {
    const auto way = std::find(known.begin(), known.end(), name);
    if (way == known.end())
      fail(ErrorCode::usage, "no way to sample is called '{}'{}", name, did_you_mean(name, known));
    ways.push_back(kWays[way - known.begin()]);
  }
  return ways;
}

std::vector<Case> sample_cases(const Selection& selection) {
  std::vector<std::int64_t> vocabularies(std::begin(kVocabularies), std::end(kVocabularies));
  if (selection.n) vocabularies = {*selection.n};
  std::vector<Case> cases;
  for (const SampleWay& way : sample_ways(selection))
    for (const std::int64_t n : vocabularies)
      cases.push_back({"sample", way.name, 1, n, 1, static_cast<std::uint64_t>(n) * sizeof(float), 0, "read", [=] {
                         const auto row = std::make_shared<std::vector<float>>(sample_logits(n, way.flat));
                         return [=, sampling = way.sampling]() mutable {
                           ++sampling.seed;
                           const engine::Sample chosen = engine::sample(*row, sampling, {});
                           LOWP_CHECK(!chosen.error, "{}", chosen.error);
                         };
                       }});
  return cases;
}

}  // namespace lowp::bench
