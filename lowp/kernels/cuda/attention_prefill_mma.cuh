// Attention of many rows over an 8-bit cache, by the synchronous products that decode codes in registers.
//
// A block takes a tile of flat rows of a sequence and one KV head, 16 rows a warp, and goes through the pages that they
// see, which one more warp brings into a ring of stages. Tiles with the longest way to go come first.
#pragma once

#include "lowp/kernels/cuda/attention_piece.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"

namespace lowp::kernels::cuda {

template <class Op>
struct PrefillMmaShape {
  static constexpr int kWarps = Op::kDim == 256 ? 4 : 8, kRows = 16 * kWarps, kThreads = 32 * (kWarps + 1);
  static constexpr int kTiles = 512 / Op::kDim;  // of 8 tokens that are weighed together
  static constexpr int kStageBytes = Op::kHeadBytes;
  static constexpr int kFit = 131072 / kStageBytes, kStages = kFit < 2 ? 2 : kFit > 4 ? 4 : kFit;
  static constexpr int kShared = kStages * (kStageBytes + 16) + kWarps * Piece<Op>::kQueryBytes + 128;
};

template <class Op>
__global__ void __launch_bounds__(PrefillMmaShape<Op>::kThreads, 1)
    attention_prefill_mma(const __grid_constant__ AttentionTask task, const __grid_constant__ Group group,
                          int numbers) {
  using Shape = PrefillMmaShape<Op>;
  using Place = RingPlace<Shape::kStages>;
  extern __shared__ std::uint8_t shared[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread & 31;
  const std::uint32_t ring = (ptx::shared_address(shared) + 127) & ~127u,
                      queries = ring + Shape::kStages * Shape::kStageBytes,
                      barriers = queries + Shape::kWarps * Piece<Op>::kQueryBytes;
  const auto full = [&](int stage) { return barriers + 16 * stage; };
  const auto empty = [&](int stage) { return barriers + 16 * stage + 8; };
  ptx::launch_dependents();
  if (thread == 0) {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(full(s), 1);
      ptx::barrier_init(empty(s), Shape::kWarps);
    }
    ptx::barrier_init_fence();
  }
  ptx::wait_for_predecessor();
  __syncthreads();
  const int kv_head = static_cast<int>(blockIdx.x) / numbers,
            number = numbers - 1 - static_cast<int>(blockIdx.x) % numbers;
  const TileOfBatch at = find_tile<Shape::kRows>(task, number, group);
  if (at.sequence < 0) return;
  const SequenceWork work(task, at.sequence);
  const int first_flat = at.tile * Shape::kRows, last_flat = min(first_flat + Shape::kRows, work.rows * group) - 1;
  const int first_page = work.first_token(task, group.divide(first_flat)) / kPageTokens,
            pages = work.last_token(task, group.divide(last_flat)) / kPageTokens + 1 - first_page;
  Place place;
  if (warp == Shape::kWarps) {
    for (int begin = 0; begin < pages; begin += 32) {
      const unsigned char* own = nullptr;
      if (begin + lane < pages)
        own = static_cast<const unsigned char*>(
                  task.kv.pages[at.sequence * task.kv.max_pages + first_page + begin + lane]) +
              task.kv.layer_offset + kv_head * Op::kHeadBytes;
      for (int i = 0; i < min(32, pages - begin); ++i) {
        const auto page = __shfl_sync(~0u, reinterpret_cast<std::uint64_t>(own), i);
        if (lane == 0) {
          ptx::barrier_wait(empty(place.stage), place.parity ^ 1);
          ptx::barrier_expect(full(place.stage), Op::kHeadBytes);
          ptx::load_bytes(ring + place.stage * Shape::kStageBytes, reinterpret_cast<const void*>(page), Op::kHeadBytes,
                          full(place.stage));
        }
        place.advance();
      }
      __syncwarp();
    }
    return;
  }
  TileRows tile;
  const std::uint16_t* rows[2];
  float power[2];
  const int flat = first_flat + 16 * warp;
  tile.find(task, group, work, flat, lane);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int own = flat + lane / 4 + 8 * h;
    rows[h] = own <= last_flat ? static_cast<const std::uint16_t*>(task.q) +
                                     flat_offset(work, own, group, kv_head, task.q_stride, Op::kDim)
                               : nullptr;
    power[h] = Op::query_power(rows[h], lane & 3);
    tile.factor[h] *= power[h];
  }
  const std::uint32_t own_queries = queries + warp * Piece<Op>::kQueryBytes;
  Piece<Op>::stage_queries(rows, power, lane, own_queries);
  __syncwarp();
  WarpSums<Op> sums;
  sums.clear();
  for (int p = 0; p < pages; ++p) {
    ptx::barrier_wait(full(place.stage), place.parity);
    const std::uint32_t page = ring + place.stage * Shape::kStageBytes;
#pragma unroll 1
    for (int slot = 0; slot < kPageTokens; slot += 8 * Shape::kTiles) {
      const int first = (first_page + p) * kPageTokens + slot;
      if (first <= tile.last) attend<Shape::kTiles>(tile, own_queries, page, slot, first, lane, sums);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty(place.stage));
    place.advance();
  }
  const float all_power = sums.power.power();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int own = flat + lane / 4 + 8 * h;
    const float sink = sink_weight(task, flat_head(own, group, kv_head), sums.rows.most[h]),
                weight = __frcp_rn(sums.rows.whole_sum(h) + sink) * all_power;
    if (own > last_flat) continue;
    auto* to =
        static_cast<std::uint16_t*>(task.out) + flat_offset(work, own, group, kv_head, task.out_stride, Op::kDim);
    Piece<Op>::each_pair(sums.mixed, h, lane & 3, [&](int i, float a, float b) {
      *reinterpret_cast<std::uint32_t*>(to + i) = ptx::cvt_bf16x2(a * weight, b * weight);
    });
  }
}

}  // namespace lowp::kernels::cuda
