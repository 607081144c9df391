// The residual sum and RMSNorm of a row, by the block that holds it in registers.
#pragma once

#include "lowp/kernels/cuda/cast_norm.cuh"
#include "lowp/kernels/cuda/layers.cuh"

namespace lowp::kernels::cuda {

/// Row `index` after AddNormTask, by a block of row_threads() threads; the sum is written if `keeps`. Waits for the
/// predecessor. Beyond the row: zeros.
__device__ __forceinline__ void normalised_row(const AddNormTask& task, std::int64_t index, bool keeps,
                                               Bf16x8 (&row)[kRowChunks]) {
  const std::int64_t base = index * task.width;
  const int chunks = static_cast<int>(task.width) / 8;
  float weight[kRowChunks][8] = {};
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i)
    if (const int at = row_chunk(i); at < chunks) load_constants(task.weight + at * 8, weight[i]);
  ptx::wait_for_predecessor();
  Bf16x8 add[kRowChunks];
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    const int at = row_chunk(i);
    row[i].clear();
    add[i].clear();
    if (at >= chunks) continue;
    row[i] = load_written(task.stream, base + at * 8);
    if (task.add) add[i] = load_written(task.add, base + at * 8);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    if (task.add) {
#pragma unroll
      for (int j = 0; j < 4; ++j) row[i].word[j] = ptx::add_bf16x2(row[i].word[j], add[i].word[j]);
      if (const int at = row_chunk(i); keeps && at < chunks) store_eight(task.sum, base + at * 8, row[i]);
    }
    float v[8];
    row[i].values(v);
#pragma unroll
    for (const float s : v) squares = __fmaf_rn(s, s, squares);
  }
  const float mean = formats::divide(sum_over_block(squares), static_cast<float>(task.width));
  const float scale = formats::divide(1.0f, __fsqrt_rn(mean + task.eps));
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    float v[8];
    row[i].values(v);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      v[j] *= scale;
      v[j] = weight[i][j] * (task.round_quotient ? round_bf16(v[j]) : v[j]);
    }
    row[i] = to_chunk<Elem::bf16>(v);
  }
}

}  // namespace lowp::kernels::cuda
