// Causal attention of many sequences over paged keys and values, on the GPU.
//
// out = softmax(scale q k^T) v, rounded to bf16; with sinks the softmax has one logit more a head, whose weight is
// dropped. Query head h reads KV head h / (heads / kv_heads). Row r of a sequence stands at position past + r and sees
// positions 0 .. past + r, or the last `window` of them, its own included; their keys and values are in the pages
// already. Lengths and pages are in device memory, so that a recorded call can be replayed for other lengths;
// `sequences` and `rows` are upper bounds, and sequences without rows are skipped.
//
// What a row gets does not depend on the run, nor on what else is in the batch:
//   attend_decode   cuts the pages that a tile of rows sees into at most kMostSegments segments, by their number, and
//                   merges them in order. A sequence's only row depends on its query, keys and values alone; several
//                   rows of one sequence also on how many they are.
//   attend_prefill  goes through the keys in tiles from position 0 on. A row depends on its query, keys and values
//                   alone, however the prompt was cut.
// The two sum in different orders: an engine that wants equal bits sends prompts to one and generated tokens to the
// other, whatever their number.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/kv_pages.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

struct AttentionTask {
  const void* q =
      nullptr;  // bf16 [rows, heads, head_dim], rows q_stride values apart (a multiple of 8), 16-byte aligned
  std::int64_t q_stride = 0;
  void* out = nullptr;  // bf16 [rows, heads, head_dim], likewise
  std::int64_t out_stride = 0;
  KvPages kv;
  std::int64_t heads = 0;             // a multiple of the KV heads
  float scale = 1;                    // of the scores
  std::int64_t window = 0;            // 0: all
  bool causal = true;                 // otherwise every row sees all of its sequence: attend_prefill, without a window
  bool e4m3 = false;                  // attend_prefill over an e4m3 cache: see there
  const float* query_amax = nullptr;  // with e4m3: device [sequences, KV heads], over which all of their queries are
                                      // scaled; null: each row of a head by itself
  bool hadamard = false;              // with e4m3: values were rotated (head_hadamard.h), results are rotated back
  const float* sinks = nullptr;       // device [heads]; null: none
  const std::int32_t* row_begin = nullptr;  // device [sequences + 1]: rows of sequence s are row_begin[s] up to s + 1
  const std::int32_t* past = nullptr;       // device [sequences]: tokens before its first row
  std::int64_t sequences = 0;               // at most; up to kMostSequences
  std::int64_t rows = 0;                    // of all sequences, at most
  void* workspace = nullptr;  // attend_decode: attend_decode_workspace() bytes, zero before the first call
};

inline constexpr std::int64_t kMostSequences = 1024;
inline constexpr int kMostSegments = 16;

/// For sequences that have few rows: each KV head is read once for all query rows that share it, 8 at a time. Time is
/// that of reading the keys and values.
void attend_decode(const AttentionTask& task, StreamHandle stream);

/// Bytes that attend_decode needs beside its operands; for a task whose sizes are upper bounds of all that follow.
std::int64_t attend_decode_workspace(const AttentionTask& task);

/// For sequences with many rows (one is fine, but slow). Products are exact of what bf16 and 8-bit caches hold, weights
/// of the softmax are rounded to bf16 or, over 8 bits, to f16. With `e4m3` queries (over one scale a row) and weights
/// are rounded to e4m3 as well, and the tensor cores multiply 8 bits: kernels::ref::attend_e4m3() is the arithmetic.
/// Heads of 256 have no such kernel.
void attend_prefill(const AttentionTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
