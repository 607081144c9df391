// Attention of many rows over an e4m3 cache by wgmma, all operands e4m3.
//
// As attention_prefill.cuh: one block for each multiprocessor, two warpgroups that multiply 64 flat rows each, 128 keys
// at a time; here they take turns at exponentials only. Of the third warpgroup one warp brings pages in, two transpose
// values, one makes ready what the softmax wants of each token.
//
// A row's queries become codes over one scale, amax / 448. Weights are e4m3 too, times 2^8. The scale of a token's
// value is part of its weight before that is rounded: the softmax is taken of score + log2(scale), so that the largest
// operand of a row is 2^8 whatever the scales are, and the row's sum divides each weight by the scale again. Nothing
// depends on tokens that a row does not see.
//
// The tensor cores keep about 14 bits of a running sum, so that a key tile's part of the result is summed by itself and
// then added in f32: 64 of the head at a time, for which registers suffice.
#pragma once

#include "lowp/kernels/attention_e4m3.h"
#include "lowp/kernels/cuda/attention_rows.cuh"
#include "lowp/kernels/cuda/attention_softmax.cuh"
#include "lowp/kernels/cuda/attention_transpose.cuh"
#include "lowp/kernels/cuda/attention_walk.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"
#include "lowp/kernels/cuda/gemm_wgmma.cuh"
#include "lowp/kernels/hadamard.h"

namespace lowp::kernels::cuda {

template <int kHeadDim>
struct PrefillE4m3Shape {
  using Op = Operands<Elem::e4m3, kHeadDim>;
  static constexpr int kDim = kHeadDim, kRows = 128, kKeys = kE4m3KeyTile, kPages = kKeys / kPageTokens;
  static constexpr int kPageBytes = Op::kKeysBytes, kTileBytes = kPages * kPageBytes;
  static constexpr int kScaleBytes = 2 * kPageTokens * 4;  // of a page's keys and values
  static constexpr int kStages = 3, kRawStages = 2;
  static constexpr int kQueryBytes = kRows * kDim;
  // Of each two tokens: both scales of keys and both logarithms of scales of values; then inverses of those scales.
  static constexpr int kInversesAt = kKeys / 2 * 16, kColumnBytes = kInversesAt + kKeys / 2 * 8;
  static constexpr int kBarriers = 4 * kStages + 2 * kRawStages;
  static constexpr int kKeysAt = kQueryBytes, kValuesAt = kKeysAt + kStages * kTileBytes,
                       kRawAt = kValuesAt + kStages * kTileBytes, kColumnsAt = kRawAt + kRawStages * kTileBytes,
                       kRawScalesAt = kColumnsAt + kStages * kColumnBytes,
                       kQueryScalesAt = kRawScalesAt + kRawStages * kPages * kScaleBytes,
                       kBarriersAt = kQueryScalesAt + kRows * 4, kShared = kBarriersAt + 8 * kBarriers + 1024;
};

template <int kHeadDim>
struct PrefillE4m3Kernel {
  using Shape = PrefillE4m3Shape<kHeadDim>;
  using Op = typename Shape::Op;
  using Place = RingPlace<Shape::kStages>;
  using RawPlace = RingPlace<Shape::kRawStages>;
  static constexpr int kDim = kHeadDim, kPages = Shape::kPages, kTiles = Shape::kKeys / 8, kHalves = kDim / 64;

  const PrefillArgs& args;
  std::uint32_t shared;

  __device__ std::uint32_t keys(int stage) const { return shared + Shape::kKeysAt + stage * Shape::kTileBytes; }
  __device__ std::uint32_t values(int stage) const { return shared + Shape::kValuesAt + stage * Shape::kTileBytes; }
  __device__ std::uint32_t raw(int stage) const { return shared + Shape::kRawAt + stage * Shape::kTileBytes; }
  __device__ std::uint32_t columns(int stage) const { return shared + Shape::kColumnsAt + stage * Shape::kColumnBytes; }
  __device__ std::uint32_t raw_scales(int stage) const {
    return shared + Shape::kRawScalesAt + stage * kPages * Shape::kScaleBytes;
  }
  __device__ std::uint32_t keys_full(int s) const { return shared + Shape::kBarriersAt + 32 * s; }
  __device__ std::uint32_t keys_empty(int s) const { return keys_full(s) + 8; }
  __device__ std::uint32_t values_full(int s) const { return keys_full(s) + 16; }  // and columns
  __device__ std::uint32_t values_empty(int s) const { return keys_full(s) + 24; }
  __device__ std::uint32_t raw_full(int s) const { return keys_full(Shape::kStages) + 16 * s; }
  __device__ std::uint32_t raw_empty(int s) const { return raw_full(s) + 8; }

  __device__ void init_barriers() const {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(keys_full(s), 1);
      ptx::barrier_init(keys_empty(s), 8);        // multiplying warps
      ptx::barrier_init(values_full(s), 3 * 32);  // lanes that make ready
      ptx::barrier_init(values_empty(s), 8);
    }
    for (int s = 0; s < Shape::kRawStages; ++s) {
      ptx::barrier_init(raw_full(s), 1);
      ptx::barrier_init(raw_empty(s), 3);
    }
    ptx::barrier_init_fence();
  }

  template <typename Body>
  __device__ __forceinline__ void each_own_walk(const Body& body) const {
    each_walk<Shape::kRows, Shape::kKeys>(args, body);
  }

  // One warp: pages into the rings of keys and of values as they lie.
  __device__ void load_pages() const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const KvPages& kv = args.task.kv;
    Place place;
    RawPlace from;
    each_own_walk([&](const Walk& walk) {
      const int pages = walk.tiles * kPages;
      const unsigned char* own = nullptr;
      for (int p = 0; p < pages; p += kPages) {
        if (p % 32 == 0) own = page_of_lane<Op>(kv, walk, p, lane);
        const unsigned char* page[kPages];
#pragma unroll
        for (int i = 0; i < kPages; ++i)
          page[i] = reinterpret_cast<const unsigned char*>(
              __shfl_sync(~0u, reinterpret_cast<std::uint64_t>(own), p % 32 + i));
        if (lane == 0) {
          ptx::barrier_wait(keys_empty(place.stage), place.parity ^ 1);
          ptx::barrier_expect(keys_full(place.stage), Shape::kTileBytes);
#pragma unroll
          for (int i = 0; i < kPages; ++i)
            ptx::load_bytes(keys(place.stage) + i * Shape::kPageBytes, page[i], Shape::kPageBytes,
                            keys_full(place.stage));
          ptx::barrier_wait(raw_empty(from.stage), from.parity ^ 1);
          ptx::barrier_expect(raw_full(from.stage), Shape::kTileBytes + kPages * Shape::kScaleBytes);
#pragma unroll
          for (int i = 0; i < kPages; ++i) {
            ptx::load_bytes(raw(from.stage) + i * Shape::kPageBytes, page[i] + Shape::kPageBytes, Shape::kPageBytes,
                            raw_full(from.stage));
            ptx::load_bytes(raw_scales(from.stage) + i * Shape::kScaleBytes, page[i] + 2 * Shape::kPageBytes,
                            Shape::kScaleBytes, raw_full(from.stage));
          }
        }
        __syncwarp();
        place.advance();
        from.advance();
      }
    });
  }

  // One warp for each page of a key tile: values along the tokens.
  __device__ void transpose(int page) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    make_ready([&](int from, int to, int seen) {
      transpose_page<Op>(raw(from) + page * Shape::kPageBytes, values(to), page, seen - page * kPageTokens, lane);
      ptx::fence_async();
    });
  }

  // One warp: what the softmax wants of tokens.
  __device__ void make_columns() const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    make_ready([&](int from, int to, int) {
#pragma unroll
      for (int page = 0; page < kPages; ++page) {
        const std::uint32_t scales = raw_scales(from) + page * Shape::kScaleBytes + lane * 8;
        const float2 key = ptx::load_shared_float2(scales), value = ptx::load_shared_float2(scales + 4 * kPageTokens);
        // A scale may be NaN, or anything beyond the last token. Logarithms keep that for rows that see the token; an
        // inverse meets a weight of zero in the others.
        const auto logarithm = [](float scale) {
          return ptx::lg2_approx(scale < kE4m3LeastValueScale ? kE4m3LeastValueScale : scale);
        };
        const auto inverse = [](float scale) { return ptx::rcp_approx(fmaxf(scale, kE4m3LeastValueScale)); };
        const int pair = page * kPageTokens / 2 + lane;
        ptx::store_shared(columns(to) + pair * 16,
                          uint4{float_bits(key.x), float_bits(key.y), float_bits(logarithm(value.x)),
                                float_bits(logarithm(value.y))});
        ptx::store_shared(columns(to) + Shape::kInversesAt + pair * 8, float2{inverse(value.x), inverse(value.y)});
      }
    });
  }

  // body(stage of the raw values, stage to write, tokens of the tile that any row sees) of every key tile.
  template <typename Body>
  __device__ __forceinline__ void make_ready(const Body& body) const {
    Place place;
    RawPlace from;
    each_own_walk([&](const Walk& walk) {
      for (int j = 0; j < walk.tiles; ++j) {
        ptx::barrier_wait(values_empty(place.stage), place.parity ^ 1);
        ptx::barrier_wait(raw_full(from.stage), from.parity);
        body(from.stage, place.stage, walk.last_token + 1 - (walk.first_key + j * Shape::kKeys));
        __syncwarp();
        arrive_by_warp(raw_empty(from.stage));
        ptx::barrier_arrive(values_full(place.stage));
        place.advance();
        from.advance();
      }
    });
  }

  // Registers of a thread while its warpgroup walks.
  struct State {
    float scores[4 * kTiles];
    std::uint32_t weights[kTiles / 4][4];
    float part[32], mixed[kHalves][32];
    float decays[2];  // of what `mixed` holds, before the next key tile's part is added
    SoftmaxRows softmax;
    Place place;  // of the key tile whose weights are at hand
  };

  // The warpgroup's 64 rows as codes into shared memory, laid out as 64 keys are, and their scales.
  __device__ void stage_queries(const Walk& walk, int consumer, std::uint32_t to, std::uint32_t scales) const {
    constexpr KvPageLayout kLayout = Op::kLayout;
    const float* shared_amax = args.task.query_amax;
    if (shared_amax) shared_amax += walk.sequence * args.task.kv.layout.kv_heads + walk.kv_head;
    ptx::sync_threads(4 + consumer, 128);  // nobody multiplies the rows before any more
    each_query<kDim, 4>(args, walk, consumer, [&](int row, int chunk, const uint4& v) {
      const std::uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
      std::uint32_t most = 0;  // as bits: whatever is not finite wins
#pragma unroll
      for (const std::uint32_t pair : pairs) most = max(most, max(pair << 16 & 0x7FFFFFFFu, pair & 0x7FFF0000u));
#pragma unroll
      for (int mask = kDim / 16; mask > 0; mask /= 2) most = max(most, __shfl_xor_sync(~0u, most, mask));
      if (shared_amax) most = float_bits(*shared_amax);
      const E4m3Scales scale = e4m3_scales(most < 0x7F800000u ? bits_float(most) : NAN);
      std::uint32_t codes[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const auto two = [&](std::uint32_t pair) {
          return ptx::cvt_e4m3x2(bits_float(pair << 16) * scale.up, bits_float(pair & 0xFFFF0000u) * scale.up);
        };
        codes[c] = two(pairs[2 * c]) | two(pairs[2 * c + 1]) << 16;
      }
      ptx::store_shared(to + kLayout.offset(row, 8 * chunk), uint2{codes[0], codes[1]});
      if (chunk == 0) ptx::store_shared(scales + row * 4, scale.down);
    });
    ptx::fence_async();
    ptx::sync_threads(4 + consumer, 128);
  }

  static __device__ __forceinline__ std::uint64_t key_descriptor(std::uint32_t address) {
    return Op::kRowBytes == 128 ? ptx::tile_descriptor(address) : ptx::narrow_tile_descriptor(address);
  }
  // Queues the scores of a key tile.
  __device__ __forceinline__ void queue_scores(State& state, std::uint32_t own_queries, int stage) const {
    const std::uint64_t a = key_descriptor(own_queries), b = key_descriptor(keys(stage));
#pragma unroll
    for (int k = 0; k < kDim / 32; ++k) ptx::WgmmaE4m3<128>::run(state.scores, a + 2 * k, b + 2 * k, k > 0);
    ptx::wgmma_commit();
  }
  // Queues the weights times 64 of the head's values of a key tile.
  __device__ __forceinline__ void queue_part(State& state, int half) const {
    const std::uint64_t b = ptx::tile_descriptor(values(state.place.stage) + half * 64 * 128);
#pragma unroll
    for (int k = 0; k < kTiles / 4; ++k)
      ptx::WgmmaE4m3Registers<64>::run(state.part, state.weights[k], b + 2 * k, k > 0);
    ptx::wgmma_commit();
  }
  __device__ __forceinline__ void add_part(State& state, int half) const {
    ptx::wgmma_wait<0>();
    ptx::pin(state.part);
#pragma unroll
    for (int i = 0; i < 32; ++i)
      state.mixed[half][i] = __fmaf_rn(state.mixed[half][i], state.decays[i / 2 % 2], state.part[i]);
  }

  // Scores of the tile whose columns are at `from` to exponents of two, and the rows' largest so far; returns decays.
  __device__ __forceinline__ float2 raise(State& state, const TileRows& rows, std::uint32_t from, int first) const {
    auto& s = reinterpret_cast<float(&)[kTiles][4]>(state.scores);
    const int t = static_cast<int>(threadIdx.x) & 3;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const uint4 column = ptx::load_shared_16(from + (4 * j + t) * 16);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        s[j][i] = __fmaf_rn(s[j][i] * bits_float(i % 2 ? column.y : column.x), rows.factor[i / 2],
                            bits_float(i % 2 ? column.w : column.z));
    }
    if (!rows.sees_all(first, Shape::kKeys)) rows.hide(s, first, t);
    float decays[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float top = fmaxf(state.softmax.most[h], largest_score(s, h));
      decays[h] = decay(state.softmax.most[h], top);
      state.softmax.most[h] = top;
    }
    return {decays[0], decays[1]};
  }
  // Exponents to weights.
  __device__ __forceinline__ void exponentiate(State& state, std::uint32_t from, const float2& decays) const {
    auto& s = reinterpret_cast<float(&)[kTiles][4]>(state.scores);
    SoftmaxRows& rows = state.softmax;
    const int t = static_cast<int>(threadIdx.x) & 3;
    rows.sum[0] *= decays.x;
    rows.sum[1] *= decays.y;
    float less[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) less[h] = rows.most[h] == -INFINITY ? 0.0f : kE4m3WeightBits - rows.most[h];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const float2 inverse = ptx::load_shared_float2(from + Shape::kInversesAt + (4 * j + t) * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[j][i] = ptx::ex2_or_zero(s[j][i] + less[i / 2]);
        rows.sum[i / 2] = __fmaf_rn(s[j][i], i % 2 ? inverse.y : inverse.x, rows.sum[i / 2]);
      }
    }
  }
  __device__ __forceinline__ void pack(State& state) const {
    const auto& s = reinterpret_cast<const float(&)[kTiles][4]>(state.scores);
#pragma unroll
    for (int k = 0; k < kTiles / 4; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 4 * k + i / 2 * 2, h = i % 2 * 2;
        state.weights[k][i] = ptx::cvt_e4m3x2(s[j][h], s[j][h + 1]) | ptx::cvt_e4m3x2(s[j + 1][h], s[j + 1][h + 1])
                                                                          << 16;
      }
  }

  // The next key tile's scores, and the products with the last one's values, which have arrived.
  __device__ __forceinline__ void step(State& state, const TileRows& rows, std::uint32_t own_queries, int first) const {
    Place next = state.place;
    next.advance();
    ptx::barrier_wait(keys_full(next.stage), next.parity);
    ptx::wgmma_fence();
    queue_scores(state, own_queries, next.stage);
    queue_part(state, 0);
    ptx::wgmma_wait<1>();
    ptx::pin(state.scores);
    arrive_by_warp(keys_empty(next.stage));
    ptx::barrier_wait(values_full(next.stage), next.parity);
    const float2 decays = raise(state, rows, columns(next.stage), first);
    ptx::pin(state.scores);
    add_part(state, 0);
    // One warpgroup's exponentials at a time, so that the other's scores go beside them. Barriers by the thread's
    // number rather than the warpgroup's, which would be one register too many.
    ptx::sync_threads(2 + (threadIdx.x >> 8), 256);
    if constexpr (kHalves == 2) {
      ptx::wgmma_fence();
      queue_part(state, 1);
    }
    exponentiate(state, columns(next.stage), decays);
    ptx::arrive_threads(3 - (threadIdx.x >> 8), 256);
    if constexpr (kHalves == 2) {
      ptx::pin(state.scores);
      add_part(state, 1);
    }
    arrive_by_warp(values_empty(state.place.stage));
    state.place = next;
    state.decays[0] = decays.x;
    state.decays[1] = decays.y;
    pack(state);
  }

  __device__ void consume(int consumer) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32 & 3;
    const std::uint32_t own_queries = shared + consumer * (Shape::kQueryBytes / 2),
                        scales = shared + Shape::kQueryScalesAt + consumer * 256;
    State state;
    if (consumer == 1) ptx::arrive_threads(2, 256);  // the first turn is the other warpgroup's
    each_own_walk([&](const Walk& walk) {
      stage_queries(walk, consumer, own_queries, scales);
      const int flat = walk.first_flat + consumer * 64 + warp * 16;
      TileRows rows;
      rows.find(args.task, args.group, walk.work, flat, lane);
#pragma unroll
      for (int h = 0; h < 2; ++h)
        rows.factor[h] *= bits_float(ptx::load_shared_4(scales + (warp * 16 + lane / 4 + 8 * h) * 4));
      state.softmax = SoftmaxRows();
#pragma unroll
      for (auto& half : state.mixed)
#pragma unroll
        for (float& v : half) v = 0;
      ptx::barrier_wait(keys_full(state.place.stage), state.place.parity);
      ptx::wgmma_fence();
      queue_scores(state, own_queries, state.place.stage);
      ptx::wgmma_wait<0>();
      ptx::pin(state.scores);
      arrive_by_warp(keys_empty(state.place.stage));
      ptx::barrier_wait(values_full(state.place.stage), state.place.parity);
      const float2 decays = raise(state, rows, columns(state.place.stage), walk.first_key);
      exponentiate(state, columns(state.place.stage), decays);
      state.decays[0] = decays.x;
      state.decays[1] = decays.y;
      pack(state);
#pragma unroll 1
      for (int j = 1; j < walk.tiles; ++j) step(state, rows, own_queries, walk.first_key + j * Shape::kKeys);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        ptx::wgmma_fence();
        queue_part(state, half);
        add_part(state, half);
      }
      arrive_by_warp(values_empty(state.place.stage));
      state.place.advance();
      write(state, walk, flat, lane);
    });
  }

  // Values 16 j + 4 t + i of a row, in lane t of its four, times the orthonormal Hadamard matrix; by all lanes.
  static __device__ __forceinline__ void transform(float (&v)[kDim / 16][4]) {
#pragma unroll
    for (auto& four : v) {
      hadamard_step<4>(four, 1);
      hadamard_step<4>(four, 2);
    }
#pragma unroll
    for (int across = 1; across < 4; across *= 2) {
      const bool second = threadIdx.x & across;
#pragma unroll
      for (auto& four : v)
#pragma unroll
        for (float& value : four) {
          const float other = __shfl_xor_sync(~0u, value, across);
          value = second ? other - value : value + other;
        }
    }
    constexpr float kFactor = kDim == 64 ? 0.125f : 0.0883883461f;  // 1 / sqrt(kDim)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float column[kDim / 16];
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) column[j] = v[j][i];
#pragma unroll
      for (int distance = 1; distance < kDim / 16; distance *= 2) hadamard_step<kDim / 16>(column, distance);
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) v[j][i] = column[j] * kFactor;
    }
  }

  __device__ __forceinline__ void write(const State& state, const Walk& walk, int flat, int lane) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = flat + lane / 4 + 8 * h;
      const float sink = sink_weight(args.task, flat_head(own, args.group, walk.kv_head),
                                     state.softmax.most[h] - kE4m3WeightBits),
                  weight = __frcp_rn(state.softmax.whole_sum(h) + sink);
      float v[kDim / 16][4];
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) {  // as transpose_page() orders the values of the head
        const float* even = &state.mixed[j / 4][8 * (j % 4) + 2 * h];
        const float* odd = even + 4;
        v[j][0] = even[0] * weight, v[j][1] = odd[0] * weight, v[j][2] = even[1] * weight, v[j][3] = odd[1] * weight;
      }
      if (args.task.hadamard) transform(v);
      if (own > walk.last_flat) continue;
      auto* to = static_cast<std::uint16_t*>(args.task.out) +
                 flat_offset(walk.work, own, args.group, walk.kv_head, args.task.out_stride, kDim) + 4 * (lane & 3);
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j)
        *reinterpret_cast<uint2*>(to + 16 * j) = {ptx::pack_bf16(v[j][0], v[j][1]), ptx::pack_bf16(v[j][2], v[j][3])};
    }
  }
};

template <int kHeadDim>
__global__ void __launch_bounds__(384, 1) attention_prefill_e4m3(const __grid_constant__ PrefillArgs args) {
  extern __shared__ std::uint8_t shared[];
  const PrefillE4m3Kernel<kHeadDim> kernel{args, (ptx::shared_address(shared) + 1023) & ~1023u};
  ptx::launch_dependents();
  if (threadIdx.x == 0) kernel.init_barriers();
  ptx::wait_for_predecessor();
  __syncthreads();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, as descriptors must be
  if (warpgroup == 0) {
    ptx::registers_down<56>();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp == 0)
      kernel.load_pages();
    else if (warp == 3)
      kernel.make_columns();
    else
      kernel.transpose(warp - 1);
  } else {
    ptx::registers_up<224>();
    kernel.consume(warpgroup - 1);
  }
}

}  // namespace lowp::kernels::cuda
