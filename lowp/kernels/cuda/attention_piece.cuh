// A warp's 16 query rows meet a piece of a page in shared memory: scores, softmax, and the weighted sum of the values.
#pragma once

#include "lowp/kernels/cuda/attention_operands.cuh"
#include "lowp/kernels/cuda/attention_softmax.cuh"
#include "lowp/kernels/cuda/attention_work.cuh"

namespace lowp::kernels::cuda {

/// What a lane knows of rows g and g + 8 of a warp's tile; the queries themselves are in shared memory.
struct TileRows {
  float factor[2];                       // of the scores
  int first_token[2], last_token[2];     // that the row sees; a last of -1: there is no such row
  int last, least_last, greatest_first;  // over the rows of the tile

  /// The tile of 16 flat rows from `flat` on, and where their queries begin (null: no such row) and their powers.
  template <class Op>
  __device__ __forceinline__ void find(const AttentionTask& task, const Group& group, const SequenceWork& work,
                                       int kv_head, int flat, int lane, const std::uint16_t* (&rows)[2],
                                       float (&power)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = flat + lane / 4 + 8 * h;
      const bool present = own < work.rows * group;
      rows[h] = present ? static_cast<const std::uint16_t*>(task.q) +
                              flat_offset(work, own, group, kv_head, task.q_stride, Op::kDim)
                        : nullptr;
      const int row = present ? group.divide(own) : 0;
      first_token[h] = work.first_token(task, row);
      last_token[h] = present ? work.past + row : -1;
      power[h] = Op::query_power(rows[h], lane & 3);
      factor[h] = task.scale * kLog2e * power[h];
    }
    last = __reduce_max_sync(~0u, max(last_token[0], last_token[1]));
    least_last = __reduce_min_sync(~0u, min(last_token[0], last_token[1]));
    greatest_first = __reduce_max_sync(~0u, max(first_token[0], first_token[1]));
  }

  /// Whether every row sees all of `count` tokens from position `first` on.
  __device__ __forceinline__ bool sees_all(int first, int count) const {
    return first >= greatest_first && first + count - 1 <= least_last;
  }

  /// Scores of kTiles times 8 tokens from position `first` on become -infinity where they are not seen.
  template <int kTiles>
  __device__ __forceinline__ void hide(float (&s)[kTiles][4], int first, int t) const {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = first + 8 * j + 2 * t + i % 2;
        if (token < first_token[i / 2] || token > last_token[i / 2]) s[j][i] = -INFINITY;
      }
  }
};

/// What a warp's rows have gathered so far.
template <class Op>
struct WarpSums {
  typename Op::Mixed mixed;
  SoftmaxRows rows;
  ValuePower power;  // of mixed; 8-bit types

  __device__ __forceinline__ void clear() {
    rows = SoftmaxRows();
    power = ValuePower();
#pragma unroll
    for (auto& tile : mixed)
#pragma unroll
      for (float& v : tile) v = 0;
  }
};

/// The kTiles * 8 tokens of a page from `slot` on, which stand at position `first` <= rows.last; `queries`, `page`:
/// addresses of staged queries, and of the page's keys, values and scales.
template <int kTiles, class Op>
__device__ __forceinline__ void attend(const TileRows& rows, std::uint32_t queries, std::uint32_t page, int slot,
                                       int first, int lane, WarpSums<Op>& sums) {
  const int t = lane & 3;
  const std::uint32_t keys = page + slot * Op::kRowBytes;
  float s[kTiles][4];
  Op::scores(queries, keys, lane, s);
  // What lies beyond the last token that a row sees may be anything, and must not meet even a weight of zero.
  const int last = rows.last - first;
  const bool all = rows.sees_all(first, 8 * kTiles);
  float value_scale[2 * kTiles];
  if constexpr (Op::k8Bit) {
    const std::uint32_t scales = page + 2 * Op::kKeysBytes + (slot + 2 * t) * 4;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const float2 key = ptx::load_shared_float2(scales + 32 * j),
                   value = ptx::load_shared_float2(scales + 4 * kPageTokens + 32 * j);
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] *= i % 2 ? key.y : key.x;
      value_scale[2 * j] = 8 * j + 2 * t <= last ? value.x : 0.0f;
      value_scale[2 * j + 1] = 8 * j + 2 * t + 1 <= last ? value.y : 0.0f;
    }
  }
  if (!all) rows.hide(s, first, t);
  float decays[2];
  sums.rows.weigh(s, rows.factor, decays);
  if constexpr (Op::k8Bit) {
    const float grown = sums.power.grow(value_scale), inverse = sums.power.inverse();
#pragma unroll
    for (float& d : decays) d *= grown;
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] *= value_scale[2 * j + i % 2] * inverse;
  }
  if (__any_sync(~0u, decays[0] != 1 || decays[1] != 1)) {
#pragma unroll
    for (auto& tile : sums.mixed)
#pragma unroll
      for (int i = 0; i < 4; ++i) tile[i] *= decays[i / 2];
  }
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const std::uint32_t weights[4] = {Op::pack_weights(s[j][0], s[j][1]), Op::pack_weights(s[j][2], s[j][3]),
                                      Op::pack_weights(s[j + 1][0], s[j + 1][1]),
                                      Op::pack_weights(s[j + 1][2], s[j + 1][3])};
    const auto mask = [&](int token) {
      return (token <= last ? 0xFFFFu : 0u) | (token + 1 <= last ? 0xFFFF0000u : 0u);
    };
    const std::uint32_t keep[2] = {mask(8 * j + 2 * t), mask(8 * j + 8 + 2 * t)};
    Op::mix(weights, keys + 8 * j * Op::kRowBytes + Op::kKeysBytes, lane, keep, sums.mixed);
  }
}

}  // namespace lowp::kernels::cuda
