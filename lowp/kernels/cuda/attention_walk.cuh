// How the persistent blocks of attention by wgmma go through a batch: tiles of flat rows, and each one's tiles of keys.
#pragma once

#include "lowp/kernels/cuda/attention_work.cuh"

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

}  // namespace lowp::kernels::cuda
