// The engine without a server: throughput of many requests, latency of one batch, as vLLM's benchmarks define them.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/load.h"
#include "lowp/engine/engine.h"

namespace lowp::bench {

struct Throughput {
  double seconds = 0;  // from the first request submitted to the last token
  std::int64_t requests = 0, prompt_tokens = 0, output_tokens = 0;
};

/// Runs all of the load, whose prompts are token ids, at temperature 1; every request generates its whole length.
/// Throws Error(usage) for one that the engine refuses, Error(bad_input) for one that fails.
Throughput run_throughput(engine::Engine& engine, const engine::Budget& budget, const std::vector<LoadRequest>& load);

/// Seconds that `batch` prompts of `input` ids take to generate `output` tokens each, together; `runs` after `warmups`.
std::vector<double> run_latency(engine::Engine& engine, const engine::Budget& budget, std::int64_t batch,
                                std::int64_t input, std::int64_t output, std::int64_t warmups, std::int64_t runs,
                                std::int64_t vocab_size);

}  // namespace lowp::bench
