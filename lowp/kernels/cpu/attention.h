// Attention over pages of keys and values: the products and the softmax of up to 16 query rows with up to 8 pages, one
// variant for each instruction set. What the rows have seen before and come to see later is merged by ops::attend.
//
// Layouts, for a head dimension padded with zeros to `dim`, a multiple of 32. P is 2 for kernels with bf16 operands and
// 1 for those with f32: the elements that one instruction multiplies and adds lie together.
//   keys of a page    [dim / P][64 tokens][P]
//   values of a page  [64 tokens / P][dim][P]
//   queries           [rows][dim]
//   scores            f32 [rows][kSegmentTokens]
//   weights           [rows][kSegmentTokens], in the operands' type
#pragma once

#include <cstdint>

#include "lowp/kernels/cpu/isa.h"

namespace lowp::kernels::cpu {

constexpr std::int64_t kPageTokens = 64;
constexpr std::int64_t kSegmentTokens = 512;
constexpr std::int64_t kSegmentPages = kSegmentTokens / kPageTokens;
constexpr std::int64_t kQueryRows = 16;

/// Largest score of a row, and the sum of its weights.
struct SoftmaxStats {
  float largest, sum;
};

struct AttentionKernel {
  const char* name;
  bool bf16;  // operands are bf16, two to a pair; otherwise f32

  /// scores[r][t] = queries[r] . keys[t] of all tokens of `pages` pages. A row's result does not depend on the others.
  void (*scores)(const void* queries, std::int64_t rows, const void* const* keys, std::int64_t pages, std::int64_t dim,
                 float* scores);
  /// One row, of which the tokens [begin, end) are visible: s[t] = scores[t] * scale * key_scales[t], weights[t] =
  /// exp(s[t] - max) * value_scales[t] (scales of 1 where null), the other weights of [0, padded) zero. The sum is of
  /// the exponentials in f32. Overwrites the scores.
  SoftmaxStats (*softmax)(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, float scale,
                          const float* key_scales, const float* value_scales, void* weights);
  /// The same with weights in e4m3, as kernels/ref/attention.h has them: s[t] = scores[t] * scale * key_scales[t] +
  /// value_logs[t], weights[t] = e4m3(2^kE4m3WeightBits exp(s[t] - max)) / 2^kE4m3WeightBits; value_logs are of the
  /// scales of values, by whose inverses the sum's exponentials are multiplied.
  SoftmaxStats (*softmax_e4m3)(float* scores, std::int64_t begin, std::int64_t end, std::int64_t padded, float scale,
                               const float* key_scales, const float* value_logs, const float* value_inverses,
                               void* weights);
  /// out[r][i] = sum over the tokens of weights[r][t] values[t][i]; out [rows][dim].
  void (*mix)(const void* weights, std::int64_t rows, const void* const* values, std::int64_t pages, std::int64_t dim,
              float* out);
  /// in [count] times `factor`, rounded to e4m3, as operands; zeros up to `padded`, a multiple of 16.
  void (*to_e4m3)(const float* in, std::int64_t count, std::int64_t padded, float factor, void* out);
  /// Stored values as operands; exact. Codes of e4m3 are finite. Each null where it is not needed.
  void (*from_int8)(const std::int8_t* in, std::int64_t count, void* out);
  void (*from_e4m3)(const std::uint8_t* in, std::int64_t count, void* out);
  void (*from_bf16)(const std::uint16_t* in, std::int64_t count, void* out);
};

extern const AttentionKernel kAttentionPortable, kAttentionAvx2, kAttentionAvx512, kAttentionAvx512Bf16, kAttentionAmx;

/// The kernel of a level for operands that are bf16 values (`bf16`) or f32.
const AttentionKernel& attention_kernel(Isa isa, bool bf16);

}  // namespace lowp::kernels::cpu
