// Attention whose products are of e4m3, in scalar code: what kernels/cuda/attention_prefill_e4m3.cuh computes but for
// the order of its sums and the tensor cores' 14 bits of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowp/tensor/tensor.h"

namespace lowp::kernels::ref {

/// Keys or values of one head: value i of token t is codes[t * head_dim + i] (e4m3, decoded) times scales[t].
struct CodedTokens {
  std::span<const float> codes, scales;
};

struct E4m3Attention {
  float scale = 1;              // of the scores
  const float* sink = nullptr;  // one more logit, whose weight is dropped
  const float* amax = nullptr;  // of all queries that share a scale; null: the query has its own
};

/// softmax(scale q k^T) v of one query over the tokens [first, last], f32 [head_dim]:
///   q becomes e4m3 codes over one scale (e4m3_scales)
///   u[t] = (q k[t]) * scale * log2(e) + log2(scale of v[t])
///   w[t] = 2^(u[t] - largest u so far + kE4m3WeightBits), tiles of kE4m3KeyTile tokens at a time
///   out  = sum of e4m3(w[t]) codes[t] / (sum of w[t] / scale of v[t] + the sink's weight)
std::vector<float> attend_e4m3(std::span<const float> query, const CodedTokens& keys, const CodedTokens& values,
                               std::int64_t first, std::int64_t last, const E4m3Attention& how);

/// Attention in fp8 over whole sequences, as torchao has it (torchao-spec 6).
struct HeadsAttention {
  std::int64_t batch = 1, seq = 1, heads = 1, kv_heads = 1, dim = 64;
  const float* cos = nullptr;  // [seq, dim / 2]; null: no rotation
  const float* sin = nullptr;
  bool interleaved = false;      // as in HeadsCast
  bool hadamard_keys = false;    // and queries
  bool hadamard_values = false;  // results are rotated back
  bool causal = true;
  float scale = 1;  // of the scores
};

/// q [batch, seq, heads, dim], k and v [batch, seq, kv_heads, dim] to softmax(scale q k^T) v of q's shape and dtype.
/// Queries and keys are rotated, and all three cast by rope_cast(): one scale for all keys (values) of a head of the
/// batch, and for all queries that share a KV head. Then attend_e4m3(), which rounds the softmax's weights, too.
Tensor attend_heads(const TensorView& q, const TensorView& k, const TensorView& v, const HeadsAttention& how);

}  // namespace lowp::kernels::ref
