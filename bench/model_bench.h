// A whole model through the engine: prefill, decoding, batched decoding, memory.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bench/device.h"
#include "bench/row.h"
#include "lowp/models/model.h"

namespace lowp::bench {

struct ModelBench {
  std::int64_t prefill = 512, decode = 128;        // tokens; 0: leave the test out
  std::vector<std::int64_t> batches = {1, 8, 32};  // sequences that decode together; 0: leave it out
  std::int64_t batch_prompt = 32, batch_decode = 24;
  int runs = 3;
};

/// Rows "pp<prefill>" (m tokens), "tg<decode>" (one sequence, k tokens) and "batch<B>" (m sequences, k tokens each),
/// each after a warm-up; then "memory": the process's largest resident memory in `bytes`. The limit of decoding is
/// reading every streamed weight once a step; of prefill, the peak of the multiply instruction that the model's recipe
/// can use. Calls `done` with each row. Throws Error(unsupported) where the model's context is too short.
void bench_model(models::Model& model, Device& device, const ModelBench& what,
                 const std::function<void(const Row&)>& done);

}  // namespace lowp::bench
