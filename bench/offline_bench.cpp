#include "bench/offline_bench.h"

#include "bench/clock.h"
#include "lowp/base/error.h"

namespace lowp::bench {

Throughput run_throughput(engine::Engine& engine, const engine::Budget& budget, const std::vector<LoadRequest>& load) {
  Throughput total{.requests = static_cast<std::int64_t>(load.size())};
  const Clock::time_point begin = Clock::now();
  std::uint64_t id = 0;
  for (const LoadRequest& request : load) {
    const auto admit = engine.submit({.id = ++id,
                                      .prompt = request.prompt.get<std::vector<std::int32_t>>(),
                                      .max_new_tokens = request.output_tokens,
                                      .ignore_eos = true,
                                      .sampling = {.seed = id}});
    if (!admit) fail(ErrorCode::usage, "{}", admit.message);
    total.prompt_tokens += request.prompt_tokens;
  }
  while (!engine.idle())
    for (const engine::Event& event : engine.step(budget)) {
      total.output_tokens += std::holds_alternative<engine::NewToken>(event.what);
      if (const auto* end = std::get_if<engine::Finished>(&event.what);
          end && end->reason == engine::FinishReason::error)
        fail(ErrorCode::bad_input, "a request failed: {}", end->message);
    }
  total.seconds = since(begin);
  return total;
}

std::vector<double> run_latency(engine::Engine& engine, const engine::Budget& budget, std::int64_t batch,
                                std::int64_t input, std::int64_t output, std::int64_t warmups, std::int64_t runs,
                                std::int64_t vocab_size) {
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < warmups + runs; ++i) {
    const auto load = random_load({.count = batch,
                                   .input = input,
                                   .output = output,
                                   .vocab_size = vocab_size,
                                   .seed = static_cast<std::uint64_t>(i)});
    const double took = run_throughput(engine, budget, load).seconds;
    if (i >= warmups) seconds.push_back(took);
  }
  return seconds;
}

}  // namespace lowp::bench
