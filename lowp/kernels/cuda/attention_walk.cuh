// How the persistent blocks of attention by wgmma go through a batch: tiles of flat rows, and each one's tiles of keys.
#pragma once

#include "lowp/kernels/cuda/attention_work.cuh"
#include "lowp/kernels/cuda/gemm_ptx.cuh"

namespace lowp::kernels::cuda {

struct PrefillArgs {
  AttentionTask task;
  Group group;
  int numbers;  // tile_numbers()
};

/// A tile of rows of a sequence and one KV head, and the key tiles that it goes through.
struct Walk {
  SequenceWork work;
  int sequence, kv_head, first_flat, last_flat;
  int last_token;              // that any row sees
  int first_page, last_page;   // that any row sees
  int first_key, tiles;        // the position where the key tiles begin
  int whole_begin, whole_end;  // key tiles that every row sees all of
};

/// body(walk) of every tile of kRows rows that is this block's, the longest first, the direction changing from round to
/// round. Key tiles begin at multiples of kKeys.
template <int kRows, int kKeys, typename Body>
__device__ __forceinline__ void each_walk(const PrefillArgs& args, const Body& body) {
  const AttentionTask& task = args.task;
  const int total = args.numbers * task.kv.layout.kv_heads, blocks = static_cast<int>(gridDim.x),
            block = static_cast<int>(blockIdx.x);
  for (int round = 0; round * blocks < total; ++round) {
    const int index = round * blocks + (round % 2 ? blocks - 1 - block : block);
    if (index >= total) continue;
    const TileOfBatch at = find_tile<kRows>(task, args.numbers - 1 - index / task.kv.layout.kv_heads, args.group);
    if (at.sequence < 0) continue;
    const SequenceWork work(task, at.sequence);
    const int first_flat = at.tile * kRows, last_flat = min(first_flat + kRows, work.rows * args.group) - 1;
    const int first_row = args.group.divide(first_flat), last_row = args.group.divide(last_flat);
    const int first = work.first_token(task, first_row), last = work.last_token(task, last_row);
    const int first_key = first / kKeys * kKeys;
    body(Walk{.work = work,
              .sequence = at.sequence,
              .kv_head = index % task.kv.layout.kv_heads,
              .first_flat = first_flat,
              .last_flat = last_flat,
              .last_token = last,
              .first_page = first / kPageTokens,
              .last_page = last / kPageTokens,
              .first_key = first_key,
              .tiles = ceil_div(last + 1 - first_key, kKeys),
              .whole_begin = ceil_div(work.first_token(task, last_row) - first_key, kKeys),
              .whole_end = (work.last_token(task, first_row) + 1 - first_key) / kKeys});
  }
}

/// The page of a walk, counted from its first key, that a lane knows when a warp goes through 32 from `first` on. Pages
/// that no row sees are stood for by ones that are seen.
template <class Op>
__device__ __forceinline__ const unsigned char* page_of_lane(const KvPages& kv, const Walk& walk, int first, int lane) {
  const int page = min(max(walk.first_key / kPageTokens + first + lane, walk.first_page), walk.last_page);
  return static_cast<const unsigned char*>(kv.pages[walk.sequence * kv.max_pages + page]) + kv.layer_offset +
         walk.kv_head * Op::kHeadBytes;
}

/// body(row, chunk, 8 values) of the 64 rows of queries of a warpgroup, by its 128 threads: values of a chunk, zeros
/// beyond the last row. A thread has the same chunk of all its rows, kBatch of which are on their way at a time.
template <int kDim, int kBatch, typename Body>
__device__ __forceinline__ void each_query(const PrefillArgs& args, const Walk& walk, int consumer, const Body& body) {
  const int thread = static_cast<int>(threadIdx.x) & 127;
  constexpr int kChunks = kDim / 8, kEach = 64 * kChunks / 128;
  const int chunk = thread % kChunks;
#pragma unroll 1
  for (int batch = 0; batch < kEach; batch += kBatch) {
    uint4 v[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int flat = walk.first_flat + consumer * 64 + ((batch + i) * 128 + thread) / kChunks;
      v[i] = uint4{0, 0, 0, 0};
      if (flat <= walk.last_flat)
        v[i] = *reinterpret_cast<const uint4*>(
            static_cast<const std::uint16_t*>(args.task.q) +
            flat_offset(walk.work, flat, args.group, walk.kv_head, args.task.q_stride, kDim) + chunk * 8);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) body(((batch + i) * 128 + thread) / kChunks, chunk, v[i]);
  }
}

/// A warp's arrival, by one lane.
__device__ __forceinline__ void arrive_by_warp(std::uint32_t barrier) {
  if ((threadIdx.x & 31) == 0) ptx::barrier_arrive(barrier);
}

}  // namespace lowp::kernels::cuda
