// Attention in fp8 over whole sequences, as torchao has it (torchao-spec 6): queries, keys and values of bf16 are
// rotated, rounded to e4m3 over one scale for all of a head, and attended to.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// kernels::ref::attend_heads() on the device, but for the order of sums and the tensor cores' 14 bits of them.
/// Pointers are to device memory, 16-byte aligned.
struct HeadsAttentionTask {
  const void* q = nullptr;  // bf16 [batch, seq, heads, dim]
  const void* k = nullptr;  // bf16 [batch, seq, kv_heads, dim]
  const void* v = nullptr;
  void* out = nullptr;                                                  // bf16 [batch, seq, heads, dim]
  std::int64_t batch = 1, seq = 1, heads = 1, kv_heads = 1, dim = 128;  // dim 64 or 128
  const float* cos = nullptr;                                           // [seq, dim / 2]; null: no rotation
  const float* sin = nullptr;
  bool interleaved = false;      // pairs (2i, 2i + 1) instead of (i, i + dim / 2)
  bool hadamard_keys = false;    // and queries
  bool hadamard_values = false;  // results are rotated back
  bool causal = true;
  float scale = 1;            // of the scores
  void* workspace = nullptr;  // attend_heads_workspace() bytes
};

/// One call reads each operand twice: a scale is known once all of a head has been seen.
void attend_heads(const HeadsAttentionTask& task, StreamHandle stream);
std::int64_t attend_heads_workspace(const HeadsAttentionTask& task);

}  // namespace lowp::kernels::cuda
