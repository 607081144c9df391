// A warp's 16 query rows in attention of many rows.
#pragma once

#include <cmath>

#include "lowp/kernels/cuda/attention_operands.cuh"
#include "lowp/kernels/cuda/attention_work.cuh"

namespace lowp::kernels::cuda {

/// What a lane knows of rows g and g + 8 of a warp's tile; the queries themselves are in shared memory.
struct TileRows {
  float factor[2];                       // of the scores
  int first_token[2], last_token[2];     // that the row sees; a last of -1: there is no such row
  int last, least_last, greatest_first;  // over the rows of the tile

  /// The tile of 16 flat rows from `flat` on.
  __device__ __forceinline__ void find(const AttentionTask& task, const Group& group, const SequenceWork& work,
                                       int flat, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = flat + lane / 4 + 8 * h;
      const bool present = own < work.rows * group;
      const int row = present ? group.divide(own) : 0;
      first_token[h] = work.first_token(task, row);
      last_token[h] = present ? work.last_token(task, row) : -1;
      factor[h] = task.scale * kLog2e;
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

}  // namespace lowp::kernels::cuda
