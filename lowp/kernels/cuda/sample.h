// Draws of tokens on the GPU.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// What one draw depends on beside its logits.
struct Draw {
  std::int32_t row = 0;   // of the logits
  float temperature = 1;  // above 0
  float min_p = 0;        // ids with less than this share of the likeliest one's probability do not come
  float unused = 0;
  double uniform = 0;  // in [0, 1)
};

/// token[i]: the first id whose weights and those before it sum to more than uniform * (the sum of all), of the ids
/// below `limit`; -1 where a logit of them is NaN or +infinity, or none is finite. Weights are e^((x - max) /
/// temperature) in f32, their sums f64.
struct SampleTask {
  const void* logits = nullptr;  // bf16 [any, vocab]
  std::int64_t vocab = 0, limit = 0;
  const Draw* draws = nullptr;  // device [count]
  std::int64_t count = 0;
  std::int32_t* token = nullptr;  // [count]
};
void sample(const SampleTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
