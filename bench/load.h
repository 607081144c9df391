// What a benchmark of serving asks for: prompts with their lengths, and when they come.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::bench {

struct LoadRequest {
  Json prompt;  // a text, or token ids
  std::int64_t prompt_tokens = 0, output_tokens = 0;
};

/// Lengths drawn from [length (1 - ratio), length (1 + ratio)], ids from below `vocab_size`; the same for the same
/// seed.
struct RandomLoad {
  std::int64_t count = 1000, input = 1024, output = 128, prefix = 0;
  double ratio = 0;
  std::int64_t vocab_size = 0;
  std::uint64_t seed = 0;
};
std::vector<LoadRequest> random_load(const RandomLoad& what);

/// First turns of ShareGPT's conversations, with the length of the answer that is there: pairs of fewer than 4 tokens,
/// prompts over 1024 and pairs over 2048 tokens are left out; too few are repeated. `tokens`: the length of a text.
/// Throws Error(bad_input) naming the file.
std::vector<LoadRequest> sharegpt_load(const std::string& path, std::int64_t count, std::int64_t output,
                                       std::uint64_t seed,
                                       const std::function<std::int64_t(const std::string&)>& tokens);

/// Seconds from the beginning at which requests are sent: `rate` a second in the mean, all at once if it is infinite.
/// Gaps are gamma-distributed, `burstiness` 1 being a Poisson process, and scaled so that all take count / rate.
std::vector<double> arrivals(std::size_t count, double rate, double burstiness, std::uint64_t seed);

}  // namespace lowp::bench
