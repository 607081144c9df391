// Attention of many rows over a bf16 cache by wgmma.
//
// Three warpgroups, and one block for each multiprocessor. One warp of the first brings pages into two rings, of keys
// and of values; the other warpgroups take 64 flat rows each of a tile of 128 of a sequence and one KV head. While the
// softmax of a key tile runs, the tensor cores multiply the weights of the tile before with its values, and what the
// other warpgroup has queued: the two take turns at queuing. A key tile begins at a multiple of its size, whatever the
// rows see, so that a row's sums do not depend on where its neighbours begin.
#pragma once

#include "lowp/kernels/cuda/attention_rows.cuh"
#include "lowp/kernels/cuda/attention_softmax.cuh"
#include "lowp/kernels/cuda/attention_walk.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"
#include "lowp/kernels/cuda/gemm_wgmma.cuh"

namespace lowp::kernels::cuda {

template <int kHeadDim>
struct PrefillShape {
  using Op = Operands<Elem::bf16, kHeadDim>;
  static constexpr int kDim = kHeadDim, kRows = 128, kPlanes = kDim / 64, kPlaneBytes = 64 * 128;
  static constexpr int kPages = kDim == 256 ? 1 : 2, kKeys = kPages * kPageTokens;  // of a key tile
  static constexpr int kPageBytes = Op::kKeysBytes, kStageBytes = kPages * kPageBytes;
  static constexpr int kStages = kDim == 64 ? 4 : 2;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kBarriers = 4 * kStages + 1;
  static constexpr int kShared = kQueryBytes + 2 * kStages * kStageBytes + 8 * kBarriers + 1024;
};

template <int kHeadDim>
struct PrefillKernel {
  using Shape = PrefillShape<kHeadDim>;
  using Op = typename Shape::Op;
  using Place = RingPlace<Shape::kStages>;
  static constexpr int kDim = kHeadDim, kPages = Shape::kPages, kTiles = 8 * kPages;

  const PrefillArgs& args;
  std::uint32_t queries, keys, values, barriers;

  __device__ std::uint32_t keys_full(int s) const { return barriers + 32 * s; }
  __device__ std::uint32_t keys_empty(int s) const { return barriers + 32 * s + 8; }
  __device__ std::uint32_t values_full(int s) const { return barriers + 32 * s + 16; }
  __device__ std::uint32_t values_empty(int s) const { return barriers + 32 * s + 24; }
  __device__ std::uint32_t values_raw() const { return barriers + 32 * Shape::kStages; }

  __device__ void init_barriers() const {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(keys_full(s), 1);
      ptx::barrier_init(keys_empty(s), 8);  // multiplying warps
      ptx::barrier_init(values_full(s), 1);
      ptx::barrier_init(values_empty(s), 8);
    }
    ptx::barrier_init(values_raw(), 1);
    ptx::barrier_init_fence();
  }

  // One warp.
  __device__ void produce() const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const KvPages& kv = args.task.kv;
    Place place;
    std::uint32_t raw_parity = 0;
    each_walk<Shape::kRows, Shape::kKeys>(args, [&](const Walk& walk) {
      const int pages = walk.tiles * kPages;
      const unsigned char* own = nullptr;
      for (int p = 0; p < pages; p += kPages) {
        if (p % 32 == 0) own = page_of_lane<Op>(kv, walk, p, lane);
        const auto load = [&](std::uint32_t to, std::uint32_t empty, std::uint32_t full, int offset) {
          std::uint64_t from[kPages];
#pragma unroll
          for (int i = 0; i < kPages; ++i) from[i] = __shfl_sync(~0u, reinterpret_cast<std::uint64_t>(own), p % 32 + i);
          if (lane == 0) {
            ptx::barrier_wait(empty, place.parity ^ 1);
            ptx::barrier_expect(full, Shape::kStageBytes);
#pragma unroll
            for (int i = 0; i < kPages; ++i)
              ptx::load_bytes(to + i * Shape::kPageBytes, reinterpret_cast<const void*>(from[i] + offset),
                              Shape::kPageBytes, full);
          }
          __syncwarp();
        };
        const std::uint32_t to = values + place.stage * Shape::kStageBytes;
        load(keys + place.stage * Shape::kStageBytes, keys_empty(place.stage), keys_full(place.stage), 0);
        const int seen = walk.last_token + 1 - (walk.first_key + p * kPageTokens);
        if (seen >= Shape::kKeys) {
          load(to, values_empty(place.stage), values_full(place.stage), Shape::kPageBytes);
        } else {
          // What lies beyond the last token that is seen may be anything, and must not meet even a weight of zero.
          load(to, values_empty(place.stage), values_raw(), Shape::kPageBytes);
          ptx::barrier_wait(values_raw(), raw_parity);
          raw_parity ^= 1;
          for (int chunk = lane; chunk < (Shape::kKeys - seen) * kDim / 8; chunk += 32) {
            const int token = seen + chunk / (kDim / 8), i = chunk % (kDim / 8);
            ptx::store_shared(to + token / kPageTokens * Shape::kPageBytes + i / 8 * Shape::kPlaneBytes +
                                  token % kPageTokens * 128 + i % 8 * 16,
                              uint4{0, 0, 0, 0});
          }
          ptx::fence_async();
          __syncwarp();
          if (lane == 0) ptx::barrier_arrive(values_full(place.stage));
        }
        place.advance();
      }
    });
  }

  // Registers of a thread while its warpgroup walks.
  struct State {
    float scores[kPages][32];
    std::uint32_t weights[4 * kPages][4];
    float mixed[kDim / 2];
    SoftmaxRows softmax;
    Place keys, values;
  };

  // The warpgroup's 64 rows into shared memory, as the operand of wgmma.
  __device__ void stage_queries(const Walk& walk, int consumer, std::uint32_t to) const {
    ptx::sync_threads(4 + consumer, 128);  // nobody multiplies the rows before any more
    each_query<kDim, (kDim < 128 ? 4 : 8)>(args, walk, consumer, [&](int row, int chunk, const uint4& v) {
      ptx::store_shared(to + chunk / 8 * Shape::kPlaneBytes + row * 128 + ((chunk % 8 ^ (row & 7)) << 4), v);
    });
    ptx::fence_async();
    ptx::sync_threads(4 + consumer, 128);
  }

  // Queues the scores of a key tile.
  __device__ __forceinline__ void queue_scores(State& state, std::uint32_t own_queries) const {
    const std::uint32_t stage = keys + state.keys.stage * Shape::kStageBytes;
#pragma unroll
    for (int page = 0; page < kPages; ++page)
#pragma unroll
      for (int plane = 0; plane < Shape::kPlanes; ++plane)
#pragma unroll
        for (int step = 0; step < 4; ++step)
          ptx::WgmmaBf16<64>::run(
              state.scores[page], ptx::tile_descriptor(own_queries + plane * Shape::kPlaneBytes) + 2 * step,
              ptx::tile_descriptor(stage + page * Shape::kPageBytes + plane * Shape::kPlaneBytes) + 2 * step,
              plane > 0 || step > 0);
    ptx::wgmma_commit();
  }
  // Queues the weights times the values of a key tile.
  __device__ __forceinline__ void queue_mix(State& state) const {
    const std::uint32_t stage = values + state.values.stage * Shape::kStageBytes;
#pragma unroll
    for (int k = 0; k < 4 * kPages; ++k)
      ptx::WgmmaBf16Transposed<kDim>::run(
          state.mixed, state.weights[k],
          ptx::transposed_descriptor(stage + k / 4 * Shape::kPageBytes + k % 4 * 2048, Shape::kPlaneBytes), 1);
    ptx::wgmma_commit();
  }

  // Scores to weights, in place.
  template <bool kHide>
  __device__ __forceinline__ void weigh(State& state, const TileRows& rows, int first, float (&decays)[2]) const {
    auto& s = reinterpret_cast<float(&)[kTiles][4]>(state.scores);
    if constexpr (kHide) rows.hide(s, first, static_cast<int>(threadIdx.x) & 3);
    state.softmax.weigh(s, rows.factor, decays);
  }
  __device__ __forceinline__ void pack(State& state) const {
    const auto& s = reinterpret_cast<const float(&)[kTiles][4]>(state.scores);
#pragma unroll
    for (int k = 0; k < 4 * kPages; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        state.weights[k][i] = ptx::pack_bf16(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
  }

  // The next key tile's scores, and the products with the last one's values, which have arrived.
  template <bool kHide>
  __device__ __forceinline__ void step(State& state, const TileRows& rows, std::uint32_t own_queries, int first,
                                       int consumer) const {
    ptx::barrier_wait(keys_full(state.keys.stage), state.keys.parity);
    ptx::sync_threads(2 + consumer, 256);
    ptx::wgmma_fence();
    queue_scores(state, own_queries);
    queue_mix(state);
    ptx::arrive_threads(3 - consumer, 256);
    ptx::wgmma_wait<1>();
#pragma unroll
    for (auto& page : state.scores) ptx::pin(page);
    arrive_by_warp(keys_empty(state.keys.stage));
    state.keys.advance();
    float decays[2];
    weigh<kHide>(state, rows, first, decays);
    // This tile's values are waited for here, not where they are needed: the compiler moves nothing across the wait,
    // and would otherwise wait for the products first and weigh afterwards.
#pragma unroll
    for (auto& page : state.scores) ptx::pin(page);
    Place next = state.values;
    next.advance();
    ptx::barrier_wait(values_full(next.stage), next.parity);
    ptx::wgmma_wait<0>();
    ptx::pin(state.mixed);
    arrive_by_warp(values_empty(state.values.stage));
    state.values = next;
    if (__any_sync(~0u, decays[0] != 1 || decays[1] != 1)) {
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) state.mixed[i] *= decays[i / 2 % 2];
    }
    pack(state);
  }

  __device__ void consume(int consumer) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32 & 3;
    const std::uint32_t own_queries = queries + consumer * (Shape::kQueryBytes / 2);
    State state;
    if (consumer == 1) ptx::arrive_threads(2, 256);  // the first turn is the other warpgroup's
    each_walk<Shape::kRows, Shape::kKeys>(args, [&](const Walk& walk) {
      stage_queries(walk, consumer, own_queries);
      const int flat = walk.first_flat + consumer * 64 + warp * 16;
      TileRows rows;
      rows.find(args.task, args.group, walk.work, flat, lane);
      state.softmax = SoftmaxRows();
#pragma unroll
      for (float& v : state.mixed) v = 0;
      ptx::barrier_wait(keys_full(state.keys.stage), state.keys.parity);
      ptx::wgmma_fence();
      queue_scores(state, own_queries);
      ptx::wgmma_wait<0>();
#pragma unroll
      for (auto& page : state.scores) ptx::pin(page);
      arrive_by_warp(keys_empty(state.keys.stage));
      state.keys.advance();
      float decays[2];
      weigh<true>(state, rows, walk.first_key, decays);
      pack(state);
      ptx::barrier_wait(values_full(state.values.stage), state.values.parity);
      int j = 1;
      const auto first = [&] { return walk.first_key + j * Shape::kKeys; };
      for (; j < min(walk.whole_begin, walk.tiles); ++j) step<true>(state, rows, own_queries, first(), consumer);
      for (; j < walk.whole_end; ++j) step<false>(state, rows, own_queries, first(), consumer);
      for (; j < walk.tiles; ++j) step<true>(state, rows, own_queries, first(), consumer);
      ptx::wgmma_fence();
      queue_mix(state);
      ptx::wgmma_wait<0>();
      ptx::pin(state.mixed);
      arrive_by_warp(values_empty(state.values.stage));
      state.values.advance();
      write(state, walk, flat, lane);
    });
  }

  __device__ __forceinline__ void write(const State& state, const Walk& walk, int flat, int lane) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = flat + lane / 4 + 8 * h;
      const float sink = sink_weight(args.task, flat_head(own, args.group, walk.kv_head), state.softmax.most[h]),
                  weight = __frcp_rn(state.softmax.whole_sum(h) + sink);
      if (own > walk.last_flat) continue;
      auto* to = static_cast<std::uint16_t*>(args.task.out) +
                 flat_offset(walk.work, own, args.group, walk.kv_head, args.task.out_stride, kDim) + 2 * (lane & 3);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j)
        *reinterpret_cast<std::uint32_t*>(to + 8 * j) =
            ptx::pack_bf16(state.mixed[4 * j + 2 * h] * weight, state.mixed[4 * j + 2 * h + 1] * weight);
    }
  }
};

template <int kHeadDim>
__global__ void __launch_bounds__(384, 1) attention_prefill(const __grid_constant__ PrefillArgs args) {
  using Shape = PrefillShape<kHeadDim>;
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t queries = (ptx::shared_address(shared) + 1023) & ~1023u, keys = queries + Shape::kQueryBytes,
                      values = keys + Shape::kStages * Shape::kStageBytes,
                      barriers = values + Shape::kStages * Shape::kStageBytes;
  const PrefillKernel<kHeadDim> kernel{args, queries, keys, values, barriers};
  ptx::launch_dependents();
  if (threadIdx.x == 0) kernel.init_barriers();
  ptx::wait_for_predecessor();
  __syncthreads();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, as descriptors must be
  if (warpgroup == 0) {
    ptx::registers_down<40>();
    if (threadIdx.x < 32) kernel.produce();
  } else {
    ptx::registers_up<232>();
    kernel.consume(warpgroup - 1);
  }
}

}  // namespace lowp::kernels::cuda
