// Attention of few rows a sequence: the time is that of reading the keys and values once.
//
// A unit is a tile of 8 flat rows of a sequence and one KV head. Its pages are cut into segments, at most
// kMostSegments, by their number alone; a segment is computed by itself and segments are merged in order, so that it
// does not matter where they were computed. One block for each multiprocessor takes a run of segments with its share of
// all pages. One warp keeps a ring of pages full by bulk copies; two teams of four take every second page, 16 tokens a
// warp. Their sums are merged in the order of the warps when the segment ends. Segments that follow each other from a
// unit's first on are merged in registers; of units that several blocks share, each leaves what it has in memory, and
// the one that ends last merges. Keys and values of earlier steps are fetched before the kernel's predecessor, which
// stores those of this one, has ended.
#pragma once

#include "lowp/kernels/cuda/attention_decode_operands.cuh"
#include "lowp/kernels/cuda/attention_decode_walk.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kStates =
    kMostSegments + 1;  // that a block may leave: segments one by one, or a unit's first ones

struct DecodeArgs {
  AttentionTask task;
  Group group;
  float* states;           // [blocks][kStates][kDecodeRows][dim + 2]: sums, largest score, sum of weights
  std::uint32_t* arrived;  // [tile numbers][kv_heads]: segments of a unit that are done; zero between launches
};

template <class Op>
struct DecodeShape {
  static constexpr int kDim = Op::kDim, kTeams = kDim == 256 ? 1 : 2, kWarps = 4 * kTeams;
  static constexpr int kConsumers = 32 * kWarps, kThreads = kConsumers + 32;
  static constexpr int kStageBytes = Op::kHeadBytes;
  // A stage is one team's, as are the pages of a segment: with a stage that both used, a team that is ahead could take
  // an older turn of the other's for its own.
  static constexpr int kFit = 131072 / kStageBytes / kTeams * kTeams, kStages = kFit > 8 ? 8 : kFit;
  // The sums of all warps meet in shared memory; the padding keeps rows 2t of four lanes on different banks.
  static constexpr int kSumStride = kDim + 4;
  static constexpr int kMergeBytes = kWarps * kDecodeRows * (kSumStride + 2) * 4;
  static constexpr int kShared = kStages * (kStageBytes + 16) + kMergeBytes + 128;
  static constexpr int kEach = (kDecodeRows * kDim / 2 + kConsumers - 1) / kConsumers;  // pairs of a thread
  static constexpr int kStateFloats = kDecodeRows * (kDim + 2);
};

template <class Op>
struct DecodeKernel {
  using Shape = DecodeShape<Op>;
  using Place = RingPlace<Shape::kStages>;
  static constexpr int kDim = Op::kDim;

  const DecodeArgs& args;
  std::uint32_t ring, barriers, merging;
  int quota, end;  // pages of a block; this one's last segment begins before number `end`

  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t empty(int stage) const { return barriers + 16 * stage + 8; }

  /// Stages that a segment of so many pages takes.
  __device__ static int turns_of(int pages) { return ceil_div(pages, Shape::kTeams) * Shape::kTeams; }

  __device__ void produce(Cursor cursor) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const KvPages& kv = args.task.kv;
    Place place;
    bool waited = false;
    // 32 pages at a time, whose addresses are read while the pages before are waited for.
    int done = 0;  // pages of the segment
    const auto addresses = [&]() -> const unsigned char* {
      if (done + lane >= cursor.pages()) return nullptr;
      const void* page = kv.pages[cursor.sequence * kv.max_pages + cursor.first_page() + done + lane];
      return static_cast<const unsigned char*>(page) + kv.layer_offset + cursor.kv_head * Op::kHeadBytes;
    };
    const auto more = [&] { return cursor.inside() && cursor.start() < end; };
    const unsigned char* next = addresses();
    while (more()) {
      const unsigned char* now = next;
      const int count = min(32, cursor.pages() - done);
      // Pages whose tokens are all older than the step's: the predecessor writes the others.
      const int old = cursor.own.work.past / kPageTokens - cursor.first_page() - done;
      int turns = count;  // of stages: a segment takes as many for each team
      done += count;
      if (done >= cursor.pages()) {
        turns += turns_of(cursor.pages()) - cursor.pages();
        cursor.advance();
        done = 0;
      }
      if (more()) next = addresses();
      for (int i = 0; i < turns; ++i) {
        const auto page = __shfl_sync(~0u, reinterpret_cast<std::uint64_t>(now), i & 31);
        if (lane == 0) {
          ptx::barrier_wait(empty(place.stage), place.parity ^ 1);
          if (!waited && i >= old) {
            ptx::wait_for_predecessor();
            waited = true;
          }
          if (i < count) {
            ptx::barrier_expect(full(place.stage), Op::kHeadBytes);
            ptx::load_bytes(ring + place.stage * Shape::kStageBytes, reinterpret_cast<const void*>(page),
                            Op::kHeadBytes, full(place.stage));
          } else {
            ptx::barrier_arrive(full(place.stage));
          }
        }
        place.advance();
      }
      __syncwarp();
    }
  }

  // Part of a row: of the pair number threadIdx.x + e * kConsumers of the tile's rows, one after the other.
  struct Merged {
    float most = -INFINITY, sum = 0;
    float2 mixed = {0, 0};

    /// Joins what comes later.
    __device__ __forceinline__ void add(const Merged& next) {
      const float top = fmaxf(most, next.most), mine = decay(most, top), theirs = decay(next.most, top);
      most = top;
      sum = sum * mine + next.sum * theirs;
      mixed.x = mixed.x * mine + next.mixed.x * theirs;
      mixed.y = mixed.y * mine + next.mixed.y * theirs;
    }
  };
  // Calls body(e, row, value) for each pair of this thread that is of the first `rows` rows.
  template <typename Body>
  __device__ __forceinline__ static void each_pair(int rows, const Body& body) {
#pragma unroll
    for (int e = 0; e < Shape::kEach; ++e) {
      const int pair = static_cast<int>(threadIdx.x) + e * Shape::kConsumers, row = pair / (kDim / 2);
      if (row < rows) body(e, row, 2 * (pair % (kDim / 2)));
    }
  }

  __device__ std::uint32_t sums_at(int warp, int row) const {
    return merging + static_cast<std::uint32_t>((warp * kDecodeRows + row) * Shape::kSumStride * 4);
  }
  __device__ std::uint32_t stats_at(int warp, int row) const {
    return merging + static_cast<std::uint32_t>(
                         (Shape::kWarps * kDecodeRows * Shape::kSumStride + (warp * kDecodeRows + row) * 2) * 4);
  }
  // A warp's sums into shared memory.
  __device__ __forceinline__ void show(const DecodeSums<Op>& sums) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4,
              t = lane & 3;
    const float power = Op::k8Bit ? sums.power.power() : 1.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::uint32_t row = sums_at(warp, 2 * t + h);
      const float weight = sums.whole_sum(h);
#pragma unroll
      for (int j = 0; j < Op::kSteps; ++j) {
        const float a = sums.mixed[j][h] * power, b = sums.mixed[j][2 + h] * power;
        if constexpr (Op::k8Bit) {
          ptx::store_shared(row + (16 * j + 2 * g) * 4, float2{a, b});
        } else {
          ptx::store_shared(row + (16 * j + g) * 4, a);
          ptx::store_shared(row + (16 * j + 8 + g) * 4, b);
        }
      }
      if (g == 0) ptx::store_shared(stats_at(warp, 2 * t + h), float2{sums.most[h], weight});
    }
  }
  // What the warps have shown, merged in their order.
  __device__ __forceinline__ Merged merge_warps(int row, int value) const {
    Merged all;
    float2 stats[Shape::kWarps];
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      stats[w] = ptx::load_shared_float2(stats_at(w, row));
      all.most = fmaxf(all.most, stats[w].x);
    }
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      const float part = decay(stats[w].x, all.most);
      const float2 v = ptx::load_shared_float2(sums_at(w, row) + 4 * value);
      all.sum += stats[w].y * part;
      all.mixed.x += v.x * part;
      all.mixed.y += v.y * part;
    }
    return all;
  }

  __device__ float* state(int block, int index) const {
    return args.states + (static_cast<std::int64_t>(block) * kStates + index) * Shape::kStateFloats;
  }
  __device__ __forceinline__ static void store(const Merged& merged, float* to, int row, int value) {
    float* at = to + row * (kDim + 2);
    *reinterpret_cast<float2*>(at + value) = merged.mixed;
    if (value == 0) *reinterpret_cast<float2*>(at + kDim) = {merged.most, merged.sum};
  }
  __device__ __forceinline__ static Merged load(const float* from, int row, int value) {
    const float* at = from + row * (kDim + 2);
    const float2 stats = __ldcg(reinterpret_cast<const float2*>(at + kDim));
    return {stats.x, stats.y, __ldcg(reinterpret_cast<const float2*>(at + value))};
  }
  __device__ __forceinline__ void write(const Merged& merged, const Cursor& cursor, int row, int value) const {
    const int flat = cursor.tile * kDecodeRows + row;
    auto* to = static_cast<std::uint16_t*>(args.task.out) +
               flat_offset(cursor.own.work, flat, args.group, cursor.kv_head, args.task.out_stride, kDim);
    const float sink = sink_weight(args.task, flat_head(flat, args.group, cursor.kv_head), merged.most),
                weight = __frcp_rn(merged.sum + sink);
    *reinterpret_cast<std::uint32_t*>(to + value) = ptx::cvt_bf16x2(merged.mixed.x * weight, merged.mixed.y * weight);
  }

  // Notes that `count` segments of the cursor's unit are in memory; the block that brings the last ones merges all.
  __device__ void deliver(const Cursor& cursor, int count, int rows) const {
    __shared__ bool last;
    __shared__ const float* states[kMostSegments];
    const int thread = static_cast<int>(threadIdx.x);
    ptx::sync_threads(1, Shape::kConsumers);
    if (thread == 0) {
      const int number = tile_base<kDecodeRows>(cursor.sequence, cursor.own.work.begin, args.group) + cursor.tile;
      std::uint32_t* arrived = args.arrived + number * args.task.kv.layout.kv_heads + cursor.kv_head;
      __threadfence();
      last = atomicAdd(arrived, count) + count == static_cast<std::uint32_t>(cursor.own.segments);
      if (last) *arrived = 0;
      __threadfence();
    }
    // Who has what: the first block its segments as one, the others one by one.
    if (thread < cursor.own.segments) {
      const int block = cursor.start(thread) / quota,
                before = max(block * quota - cursor.start(0), 0),  // pages of the unit in earlier blocks
          index = thread - SequenceUnits::ceil_shift(before, cursor.own.log);
      states[thread] = thread == 0                        ? state(block, kMostSegments)
                       : block == cursor.start(0) / quota ? nullptr
                                                          : state(block, index);
    }
    ptx::sync_threads(1, Shape::kConsumers);
    if (!last) return;
    each_pair(rows, [&](int, int row, int value) {
      Merged all;
      for (int k = 0; k < cursor.own.segments; k += 4) {
        Merged next[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.own.segments && states[k + i]) next[i] = load(states[k + i], row, value);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.own.segments && states[k + i]) all.add(next[i]);
      }
      write(all, cursor, row, value);
    });
  }

  __device__ void consume(Cursor cursor) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32, team = warp / 4,
              slot = warp % 4 * 16, block = static_cast<int>(blockIdx.x);
    Place place;
    DecodeRows<Op> tile;
    Merged merged[Shape::kEach];
    bool from_first = false;
    int delivered = 0, rows = 0;
    for (bool fresh = true; cursor.inside() && cursor.start() < end;) {
      if (fresh) {
        const int flat = cursor.tile * kDecodeRows;
        tile.load(args.task, args.group, cursor.own.work, cursor.kv_head, flat, lane);
        rows = min(kDecodeRows, cursor.own.work.rows * args.group - flat);
        from_first = cursor.segment == 0;
        delivered = 0;
#pragma unroll
        for (Merged& m : merged) m = Merged();
        fresh = false;
      }
      DecodeSums<Op> sums;
      const int pages = cursor.pages(), first = cursor.first_page() * kPageTokens + slot;
      for (int i = 0; i < turns_of(pages); ++i) {
        if (i % Shape::kTeams == team) {
          ptx::barrier_wait(full(place.stage), place.parity);
          const int at = first + i * kPageTokens;
          if (i < pages && at <= tile.last) sums.attend(tile, ring + place.stage * Shape::kStageBytes, slot, at, lane);
          __syncwarp();
          if (lane == 0) ptx::barrier_arrive(empty(place.stage));
        }
        place.advance();
      }
      ptx::sync_threads(1, Shape::kConsumers);  // the segment before has been read
      show(sums);
      ptx::sync_threads(1, Shape::kConsumers);
      each_pair(rows, [&](int e, int row, int value) {
        const Merged segment = merge_warps(row, value);
        if (from_first)
          merged[e].add(segment);
        else
          store(segment, state(block, delivered), row, value);
      });
      ++delivered;
      const bool unit_ends = cursor.segment + 1 == cursor.own.segments;
      const Cursor now = cursor;
      cursor.advance();
      if (!unit_ends && cursor.start() < end) continue;
      fresh = true;
      if (from_first) {
        each_pair(rows, [&](int e, int row, int value) {
          if (unit_ends)
            write(merged[e], now, row, value);
          else
            store(merged[e], state(block, kMostSegments), row, value);
        });
        if (unit_ends) continue;
      }
      deliver(now, delivered, rows);
    }
  }
};

template <class Op>
__global__ void __launch_bounds__(DecodeShape<Op>::kThreads, 1)
    attention_decode(const __grid_constant__ DecodeArgs args) {
  using Shape = DecodeShape<Op>;
  extern __shared__ std::uint8_t shared[];
  ptx::launch_dependents();
  const std::uint32_t ring = (ptx::shared_address(shared) + 127) & ~127u,
                      merging = ring + Shape::kStages * Shape::kStageBytes, barriers = merging + Shape::kMergeBytes;
  if (threadIdx.x == 0) {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(barriers + 16 * s, 1);
      ptx::barrier_init(barriers + 16 * s + 8, 4);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  // Lengths and pages were there before the step began.
  const DecodePart part = find_part(args.task, args.group);
  if (part.sequence >= static_cast<int>(args.task.sequences)) {
    if (blockIdx.x == 0) ptx::wait_for_predecessor();  // the grid must not end before it
    return;
  }
  const Cursor cursor(args.task, args.group, part);
  const DecodeKernel<Op> kernel{args, ring, barriers, merging, part.quota, part.from + part.quota};
  if (static_cast<int>(threadIdx.x) / 32 == Shape::kWarps) {
    kernel.produce(cursor);
  } else {
    ptx::wait_for_predecessor();
    kernel.consume(cursor);
  }
}

}  // namespace lowp::kernels::cuda
