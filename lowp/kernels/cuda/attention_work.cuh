// Which query rows and pages a sequence of attention.h has, as all its kernels see it.
//
// Query rows that share a KV head are "flat" rows: flat row f of a sequence is its row f / group, head f % group of the
// KV head's group.
#pragma once

#include <cstdint>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/attention.h"

namespace lowp::kernels::cuda {

/// How many query heads share a KV head, for divisions without dividing.
struct Group {
  int count;
  std::uint32_t inverse;  // ceil(2^32 / count)

  explicit Group(std::int64_t heads)
      : count(static_cast<int>(heads)),
        inverse(count > 1 ? static_cast<std::uint32_t>(ceil_div(std::int64_t{1} << 32, heads)) : 0) {}
  __device__ __forceinline__ operator int() const { return count; }
  /// a / count, 0 <= a < 2^32 / count.
  __device__ __forceinline__ int divide(int a) const {
    return count == 1 ? a : static_cast<int>(__umulhi(static_cast<std::uint32_t>(a), inverse));
  }
};

/// The first row (of the batch) of a sequence, how many it has, and what is visible to them.
struct SequenceWork {
  int begin, rows, past;
  int first_page, pages;  // that any of its rows sees

  __device__ __forceinline__ SequenceWork(const AttentionTask& task, int sequence) {
    begin = task.row_begin[sequence];
    rows = task.row_begin[sequence + 1] - begin;
    past = task.past[sequence];
    first_page = first_token(task, 0) / kPageTokens;
    pages = (past + rows - 1) / kPageTokens + 1 - first_page;
  }

  /// The first and the last token that a row sees.
  __device__ __forceinline__ int first_token(const AttentionTask& task, int row) const {
    const int window = static_cast<int>(task.window);
    return window > 0 ? max(past + row + 1 - window, 0) : 0;
  }
  __device__ __forceinline__ int last_token(const AttentionTask& task, int row) const {
    return past + (task.causal ? row : rows - 1);
  }
};

/// Tiles of kRows flat rows get numbers: tile t of sequence s is number tile_base(...) + t, and no two have the same.
template <int kRows>
__device__ __forceinline__ int tile_base(int sequence, int begin, const Group& group) {
  return sequence + begin * group / kRows;
}
/// More than the largest such number.
template <int kRows>
std::int64_t tile_numbers(const AttentionTask& task) {
  return task.sequences + task.rows * (task.heads / task.kv.layout.kv_heads) / kRows;
}

/// A tile's sequence, -1 if the number is nobody's.
struct TileOfBatch {
  int sequence, tile;
};
/// Which tile has a number; by all lanes of a warp.
template <int kRows>
__device__ __forceinline__ TileOfBatch find_tile(const AttentionTask& task, int number, const Group& group) {
  int before = 0;  // sequences whose tiles begin at or below the number
  const int sequences = static_cast<int>(task.sequences), lane = static_cast<int>(threadIdx.x) & 31;
  for (int first = 0; first < sequences; first += 32) {
    const int s = first + lane;
    before += __popc(__ballot_sync(~0u, s < sequences && tile_base<kRows>(s, task.row_begin[s], group) <= number));
  }
  if (before == 0) return {-1, 0};
  const int s = before - 1, begin = task.row_begin[s], rows = task.row_begin[s + 1] - begin;
  const int tile = number - tile_base<kRows>(s, begin, group);
  return tile * kRows < rows * group ? TileOfBatch{s, tile} : TileOfBatch{-1, 0};
}

/// Where flat row `flat` of a sequence has its values in q or out.
__device__ __forceinline__ std::int64_t flat_offset(const SequenceWork& work, int flat, const Group& group, int kv_head,
                                                    std::int64_t stride, int dim) {
  const int row = group.divide(flat);
  return (work.begin + row) * stride + static_cast<std::int64_t>(kv_head * group + flat - row * group) * dim;
}

/// The query head of such a row.
__device__ __forceinline__ int flat_head(int flat, const Group& group, int kv_head) {
  return kv_head * group + flat - group.divide(flat) * group;
}

}  // namespace lowp::kernels::cuda
