// Attention whose products are of e4m3, in scalar code: what kernels/cuda/attention_prefill_e4m3.cuh computes but for
// the order of its sums and the tensor cores' 14 bits of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

}  // namespace lowp::kernels::ref
