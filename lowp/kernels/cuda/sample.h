// From logits to tokens on the GPU: the rule of engine/sampler.h, and log-probabilities.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"
#include "lowp/kernels/logit_edit.h"

namespace lowp::kernels::cuda {

/// How one token is chosen.
struct Draw {
  double uniform = 0;         // in [0, 1)
  double top_p = 1;           // of what top_k leaves, the fewest likeliest that have this share of the weight
  float min_p = 0;            // of those, ids with at least this share of the likeliest one's weight
  float temperature = 1;      // 0: the likeliest, of equals the lowest id
  std::int32_t top_k = 0;     // 0: all
  std::int32_t row = 0;       // of the logits
  std::int32_t changed = -1;  // row of SampleTask::changed for its logits once they are edited; -1: nothing is edited
  std::int32_t edits = 0, edits_end = 0;  // of SampleTask::edits, at most one for an id
  std::int32_t allowed = -1;              // where its words begin in SampleTask::allowed; -1: every id may come
};

/// token[i]: of the ids that are left, the first whose weight and those before it, in the order of ids, sum to more
/// than uniform * (the sum of all); -1 where a logit below `limit` is NaN, the largest is +infinity after the edits, or
/// none is finite. Weights are e^((x - largest) * (1 / temperature)) in f32, summed as integers in units of 2^-44, so
/// that no sum depends on an order; what weighs less does not come.
struct SampleTask {
  const void* logits = nullptr;  // bf16 [any, vocab]; vocab a multiple of 8 and at most 2^19
  std::int64_t vocab = 0, limit = 0;
  const Draw* draws = nullptr;  // device [count]
  std::int64_t count = 0;
  const LogitEdit* edits = nullptr;  // device
  const std::uint32_t* allowed =
      nullptr;                    // device; of a draw (limit + 31) / 32 words: bit i % 32 of word i / 32 is id i's
  float* changed = nullptr;       // [rows, vocab] that the draws with edits or words name
  std::int32_t* token = nullptr;  // [count]
};
void sample(const SampleTask& task, StreamHandle stream);

/// Of token[i] under row row[i] as the model gave it: the log-probability over all of `vocab`, how many ids below
/// `limit` have a larger logit, and the top[i] likeliest of those with theirs, likeliest first, of equals the lower id;
/// fewer where the limit is less. Logits must be finite, or -infinity of other ids.
struct ScoreTask {
  static constexpr std::int64_t kMostTop = 1024;
  const void* logits = nullptr;  // as above
  std::int64_t vocab = 0, limit = 0;
  const std::int32_t* row = nullptr;    // device [count]
  const std::int32_t* token = nullptr;  // device [count]
  const std::int32_t* top = nullptr;    // device [count], up to `listed`
  std::int64_t count = 0, listed = 0;   // listed: up to kMostTop
  float* logprob = nullptr;             // [count]
  std::int32_t* above = nullptr;        // [count]
  std::int32_t* top_token = nullptr;    // [count, listed]
  float* top_logprob = nullptr;         // [count, listed]
};
void score(const ScoreTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
