// The softmax of a warp's 16 query rows while tokens come in pieces. Scores are counted in powers of two.
#pragma once

#include <cmath>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/attention.h"
#include "lowp/kernels/cuda/attention_operands.cuh"
#include "lowp/kernels/cuda/attention_ptx.cuh"

namespace lowp::kernels::cuda {

/// 2^(a - b); 0 where a is -infinity, whatever b is.
__device__ __forceinline__ float decay(float a, float b) { return ptx::ex2_or_zero(a - (b == -INFINITY ? 0.0f : b)); }

/// What a row's sink adds to the sum of its weights, of which the largest score is `most`.
__device__ __forceinline__ float sink_weight(const AttentionTask& task, int head, float most) {
  return task.sinks ? ptx::ex2_or_zero(__fmaf_rn(task.sinks[head], kLog2e, -most)) : 0.0f;
}

/// The largest of kTiles times 8 scores of row g (h = 0) or g + 8 (h = 1), in the four lanes of the row.
template <int kTiles>
__device__ __forceinline__ float largest_score(const float (&s)[kTiles][4], int h) {
  float top = s[0][2 * h];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
  top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
  return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
}

/// Of rows g and g + 8.
struct SoftmaxRows {
  float most[2] = {-INFINITY, -INFINITY};  // largest score so far, the same in the four lanes of a row
  float sum[2] = {0, 0};                   // of this lane's weights

  /// Turns scores of kTiles times 8 tokens (-infinity: not seen) into weights 2^(score * factor - most); factor > 0.
  /// What was summed before has to be multiplied by `decays`.
  template <int kTiles>
  __device__ __forceinline__ void weigh(float (&s)[kTiles][4], const float (&factor)[2], float (&decays)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float top = fmaxf(most[h], largest_score(s, h) * factor[h]);
      decays[h] = decay(most[h], top);
      most[h] = top;
      sum[h] *= decays[h];
      const float reference = top == -INFINITY ? 0.0f : top;
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[j][i] = ptx::ex2_or_zero(__fmaf_rn(s[j][i], factor[h], -reference));
          sum[h] += s[j][i];
        }
    }
  }

  /// The sum of all of a row's weights.
  __device__ __forceinline__ float whole_sum(int h) const {
    const float two = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
    return two + __shfl_xor_sync(~0u, two, 2);
  }
};

/// The power of two over which the scales of values seen so far are taken, so that weights times scales fit f16: it
/// grows with the largest scale.
struct ValuePower {
  std::uint32_t exponent = 1;  // as the field of an f32

  __device__ __forceinline__ float power() const { return bits_float(exponent << 23); }
  __device__ __forceinline__ float inverse() const { return bits_float((254 - exponent) << 23); }
  /// A scale's exponent field, of a power of two whose inverse is a normal number.
  static __device__ __forceinline__ std::uint32_t field(float scale) { return min(float_bits(scale) >> 23, 253u); }
  /// Takes notice of the largest field of some scales; returns what earlier sums lose by it.
  __device__ __forceinline__ float grow(std::uint32_t largest) {
    const std::uint32_t grown = max(largest, exponent) - exponent;
    exponent += grown;
    return grown < 127 ? bits_float((127 - grown) << 23) : 0.0f;
  }
};

}  // namespace lowp::kernels::cuda
