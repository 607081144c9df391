// Attention of few rows a sequence: the time is that of reading the keys and values once.
//
// A unit is a tile of 16 flat rows of a sequence and one KV head. Its pages are cut into segments, at most
// kMostSegments, by their number alone; a segment is computed by itself and segments are merged in order, so that it
// does not matter where they were computed. One block for each multiprocessor takes a run of segments with its share of
// all pages. One warp keeps a ring of pages full by bulk copies; two teams of four take every second page, 16 tokens a
// warp. Their sums are merged in the order of the warps when the segment
// ends. Segments that follow each other from a unit's first on are merged in registers; of units that several blocks
// share, each leaves what it has in memory, and the one that ends last merges.
#pragma once

#include "lowp/kernels/cuda/attention_piece.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kDecodeRows = 16;
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
  static constexpr int kFit = 98304 / kStageBytes, kStages = kFit < 2 ? 2 : kFit > 8 ? 8 : kFit;
  // Rows are merged four at a time; the padding of a row of sums keeps four of them on different banks.
  static constexpr int kRound = 4, kRounds = kDecodeRows / kRound, kSumStride = kDim + 8;
  static constexpr int kMergeBytes = kWarps * kRound * (kSumStride + 2) * 4;
  static constexpr int kShared = kStages * (kStageBytes + 16) + kMergeBytes + Op::kQueryBytes + 128;
  static constexpr int kPairs = kRound * kDim / 2, kEach = (kPairs + kConsumers - 1) / kConsumers;  // of a thread
  static constexpr int kStateFloats = kDecodeRows * (kDim + 2);
};

/// The logarithm of a segment's pages, where a unit has so many: four at least, since merging costs as much as two.
__device__ __forceinline__ int segment_log(int pages) {
  const int least = ceil_div(pages, kMostSegments);
  return least <= 4 ? 2 : 32 - __clz(least - 1);
}

/// A sequence's share of the walk over all segments. A unit's pages are one after the other, and so are units and
/// sequences: that gives every page of every unit a number.
struct SequenceUnits {
  SequenceWork work;
  int units, log, segments;  // of the pages of a segment; segments of a unit

  __device__ SequenceUnits(const AttentionTask& task, const Group& group, int sequence)
      : work(task, sequence),
        units(work.rows > 0 ? ceil_div(work.rows * group, kDecodeRows) * task.kv.layout.kv_heads : 0),
        log(segment_log(work.pages)),
        segments(ceil_shift(work.pages, log)) {}
  __device__ int pages() const { return units * work.pages; }
  /// ceil(a / 2^log), a >= 0.
  static __device__ int ceil_shift(int a, int log) { return (a + (1 << log) - 1) >> log; }
};

/// Where the walk begins for a block, and what its part is: segments that begin at pages [from, from + quota).
struct DecodePart {
  int sequence;       // none: there is nothing to do
  int unit, segment;  // of the sequence
  int base;           // the number of the unit's first page
  int quota, from;
};

/// Where the walk stands.
struct Cursor {
  const AttentionTask& task;
  const Group& group;
  int sequence;
  SequenceUnits own;
  int base, unit, segment, tile, kv_head;

  __device__ Cursor(const AttentionTask& task, const Group& group, const DecodePart& part)
      : task(task),
        group(group),
        sequence(part.sequence),
        own(task, group, part.sequence),
        base(part.base),
        unit(part.unit),
        segment(part.segment),
        tile(unit / task.kv.layout.kv_heads),
        kv_head(unit - tile * task.kv.layout.kv_heads) {}
  __device__ int start(int at) const { return base + (at << own.log); }
  __device__ int start() const { return start(segment); }
  __device__ int pages() const { return min(1 << own.log, own.work.pages - (segment << own.log)); }
  __device__ int first_page() const { return own.work.first_page + (segment << own.log); }
  __device__ bool inside() const { return sequence < static_cast<int>(task.sequences); }

  __device__ void advance() {
    if (++segment < own.segments) return;
    segment = 0;
    base += own.work.pages;
    if (++kv_head == task.kv.layout.kv_heads) {
      kv_head = 0;
      ++tile;
    }
    if (++unit < own.units) return;
    unit = tile = kv_head = 0;
    do {
      if (++sequence >= static_cast<int>(task.sequences)) return;
      own = SequenceUnits(task, group, sequence);
    } while (own.units == 0);
  }
};

// By all lanes of a warp, which count the pages of all sequences.
__device__ __forceinline__ DecodePart find_part(const AttentionTask& task, const Group& group) {
  const int lane = static_cast<int>(threadIdx.x) & 31, sequences = static_cast<int>(task.sequences);
  int mine = 0;
  for (int s = lane; s < sequences; s += 32) mine += SequenceUnits(task, group, s).pages();
  const int total = __reduce_add_sync(~0u, mine), quota = max(ceil_div(total, static_cast<int>(gridDim.x)), 1),
            from = quota * static_cast<int>(blockIdx.x);
  int first = 0;  // pages of the sequences before these 32
  for (int chunk = 0; chunk < sequences && from < total; chunk += 32) {
    const int s = chunk + lane;
    const SequenceUnits own(task, group, min(s, sequences - 1));
    const int pages = s < sequences ? own.pages() : 0;
    int through = pages;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, through, step);
      if (lane >= step) through += other;
    }
    // The first segment that begins at `from` or later is in the first sequence that has pages from there on, unless
    // those are the rest of its last segment.
    const int before = first + through - pages;
    int unit = 0, segment = 0;
    bool here = before + pages > from;
    if (here) {
      const int skipped = max(from - before, 0);
      unit = skipped / own.work.pages;
      segment = SequenceUnits::ceil_shift(skipped - unit * own.work.pages, own.log);
      if (segment == own.segments) {
        ++unit;
        segment = 0;
      }
      here = unit < own.units;
    }
    const unsigned found = __ballot_sync(~0u, here);
    if (found) {
      const int source = __ffs(static_cast<int>(found)) - 1;
      return {chunk + source,
              __shfl_sync(~0u, unit, source),
              __shfl_sync(~0u, segment, source),
              __shfl_sync(~0u, before + unit * own.work.pages, source),
              quota,
              from};
    }
    first += __shfl_sync(~0u, through, 31);
  }
  return {sequences, 0, 0, 0, quota, from};
}

template <class Op>
struct DecodeKernel {
  using Shape = DecodeShape<Op>;
  using Place = RingPlace<Shape::kStages>;
  static constexpr int kDim = Op::kDim;

  const DecodeArgs& args;
  std::uint32_t ring, barriers, merging, queries;
  int quota, end;  // pages of a block; this one's last segment begins before number `end`

  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t empty(int stage) const { return barriers + 16 * stage + 8; }

  __device__ void produce(Cursor cursor) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const KvPages& kv = args.task.kv;
    Place place;
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
      done += count;
      if (done >= cursor.pages()) {
        cursor.advance();
        done = 0;
      }
      if (more()) next = addresses();
      for (int i = 0; i < count; ++i) {
        const auto page = __shfl_sync(~0u, reinterpret_cast<std::uint64_t>(now), i);
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
  }

  __device__ __forceinline__ void load(TileRows& tile, const Cursor& cursor) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const std::uint16_t* rows[2];
    float power[2];
    tile.find<Op>(args.task, args.group, cursor.own.work, cursor.kv_head, cursor.tile * kDecodeRows, lane, rows, power);
    ptx::sync_threads(1, Shape::kConsumers);  // the tile before is done
    Op::stage_queries(rows, power, lane, queries, static_cast<int>(threadIdx.x) / 32, Shape::kWarps);
    ptx::sync_threads(1, Shape::kConsumers);
  }

  // What a thread has of four merged rows: some pairs of their sums.
  struct Merged {
    float most = -INFINITY, sum = 0;
    float2 mixed[Shape::kEach] = {};

    /// Joins what comes later.
    __device__ __forceinline__ void add(const Merged& next) {
      const float top = fmaxf(most, next.most), mine = decay(most, top), theirs = decay(next.most, top);
      most = top;
      sum = sum * mine + next.sum * theirs;
#pragma unroll
      for (int e = 0; e < Shape::kEach; ++e) {
        mixed[e].x = mixed[e].x * mine + next.mixed[e].x * theirs;
        mixed[e].y = mixed[e].y * mine + next.mixed[e].y * theirs;
      }
    }
  };
  // Threads [kPairs / kEach] take part; each has pairs of one row.
  static constexpr int kRowThreads = kDim / 2 / Shape::kEach;
  __device__ static bool takes_part() { return static_cast<int>(threadIdx.x) < Shape::kRound * kRowThreads; }
  __device__ static int merged_row() { return static_cast<int>(threadIdx.x) / kRowThreads; }
  __device__ static int merged_value(int e) {
    return 2 * (static_cast<int>(threadIdx.x) % kRowThreads + e * kRowThreads);
  }

  // The rows 4 round .. 4 round + 3 of all warps, merged in the order of the warps.
  __device__ __forceinline__ Merged merge_warps(const WarpSums<Op>& sums, const float (&weights)[2], int round) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4,
              half = round / 2;
    const auto sums_at = [&](int w, int row) {
      return merging + static_cast<std::uint32_t>((w * Shape::kRound + row) * Shape::kSumStride * 4);
    };
    const auto stats_at = [&](int w, int row) {
      return merging + static_cast<std::uint32_t>(
                           (Shape::kWarps * Shape::kRound * Shape::kSumStride + (w * Shape::kRound + row) * 2) * 4);
    };
    ptx::sync_threads(1, Shape::kConsumers);  // the round before has been read
    if (g / 4 == round % 2) {
      const std::uint32_t row = sums_at(warp, g % 4);
      const float power = Op::k8Bit ? sums.power.power() : 1.0f;
      const auto put = [&](int i, float a, float b) {
        ptx::store_shared(row + 4 * i, Op::k8Bit ? float2{a * power, b * power} : float2{a, b});
      };
      if (half == 0)
        Op::each_pair(sums.mixed, 0, lane & 3, put);
      else
        Op::each_pair(sums.mixed, 1, lane & 3, put);
      if ((lane & 3) == 0)
        ptx::store_shared(stats_at(warp, g % 4),
                          float2{half ? sums.rows.most[1] : sums.rows.most[0], half ? weights[1] : weights[0]});
    }
    ptx::sync_threads(1, Shape::kConsumers);
    Merged all;
    if (!takes_part()) return all;
    float2 stats[Shape::kWarps];
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      stats[w] = ptx::load_shared_float2(stats_at(w, merged_row()));
      all.most = fmaxf(all.most, stats[w].x);
    }
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      const float part = decay(stats[w].x, all.most);
      all.sum += stats[w].y * part;
#pragma unroll
      for (int e = 0; e < Shape::kEach; ++e) {
        const float2 v = ptx::load_shared_float2(sums_at(w, merged_row()) + 4 * merged_value(e));
        all.mixed[e].x += v.x * part;
        all.mixed[e].y += v.y * part;
      }
    }
    return all;
  }

  __device__ float* state(int block, int index) const {
    return args.states + (static_cast<std::int64_t>(block) * kStates + index) * Shape::kStateFloats;
  }
  __device__ __forceinline__ void store(const Merged& merged, float* to, int row) const {
    if (!takes_part()) return;
    float* at = to + row * (kDim + 2);
#pragma unroll
    for (int e = 0; e < Shape::kEach; ++e) *reinterpret_cast<float2*>(at + merged_value(e)) = merged.mixed[e];
    if (merged_value(0) == 0) *reinterpret_cast<float2*>(at + kDim) = {merged.most, merged.sum};
  }
  __device__ __forceinline__ Merged load(const float* from, int row) const {
    const float* at = from + row * (kDim + 2);
    Merged merged;
    const float2 stats = __ldcg(reinterpret_cast<const float2*>(at + kDim));
    merged.most = stats.x, merged.sum = stats.y;
#pragma unroll
    for (int e = 0; e < Shape::kEach; ++e)
      merged.mixed[e] = __ldcg(reinterpret_cast<const float2*>(at + merged_value(e)));
    return merged;
  }
  __device__ __forceinline__ void write(const Merged& merged, const Cursor& cursor, int row) const {
    const int flat = cursor.tile * kDecodeRows + row;
    if (!takes_part() || flat >= cursor.own.work.rows * args.group) return;
    auto* to = static_cast<std::uint16_t*>(args.task.out) +
               flat_offset(cursor.own.work, flat, args.group, cursor.kv_head, args.task.out_stride, kDim);
    const float weight = __frcp_rn(merged.sum);
#pragma unroll
    for (int e = 0; e < Shape::kEach; ++e)
      *reinterpret_cast<std::uint32_t*>(to + merged_value(e)) =
          ptx::cvt_bf16x2(merged.mixed[e].x * weight, merged.mixed[e].y * weight);
  }

  // Notes that `count` segments of the cursor's unit are in memory; the block that brings the last ones merges all.
  __device__ void deliver(const Cursor& cursor, int count, int rounds) const {
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
    if (!last || !takes_part()) return;
    for (int round = 0; round < rounds; ++round) {
      const int row = round * Shape::kRound + merged_row();
      Merged all;
      for (int k = 0; k < cursor.own.segments; k += 4) {
        Merged next[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.own.segments && states[k + i]) next[i] = load(states[k + i], row);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.own.segments && states[k + i]) all.add(next[i]);
      }
      write(all, cursor, row);
    }
  }

  __device__ void consume(Cursor cursor) const {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32, team = warp / 4,
              slot = warp % 4 * 16;
    Place place;
    TileRows tile;
    Merged merged[Shape::kRounds];
    bool from_first = false;
    int delivered = 0, rounds = 0;
    for (bool fresh = true; cursor.inside() && cursor.start() < end;) {
      if (fresh) {
        load(tile, cursor);
        rounds =
            ceil_div(min(kDecodeRows, cursor.own.work.rows * args.group - cursor.tile * kDecodeRows), Shape::kRound);
        from_first = cursor.segment == 0;
        delivered = 0;
#pragma unroll
        for (Merged& m : merged) m = Merged();
        fresh = false;
      }
      WarpSums<Op> sums;
      sums.clear();
      const int pages = cursor.pages(), first = cursor.first_page() * kPageTokens + slot;
      for (int i = 0; i < pages; ++i) {
        if (i % Shape::kTeams == team) {
          ptx::barrier_wait(full(place.stage), place.parity);
          const int at = first + i * kPageTokens;
          if (at <= tile.last) attend<2>(tile, queries, ring + place.stage * Shape::kStageBytes, slot, at, lane, sums);
          __syncwarp();
          if (lane == 0) ptx::barrier_arrive(empty(place.stage));
        }
        place.advance();
      }
      const float weights[2] = {sums.rows.whole_sum(0), sums.rows.whole_sum(1)};
#pragma unroll
      for (int round = 0; round < Shape::kRounds; ++round) {
        if (round >= rounds) break;
        const Merged segment = merge_warps(sums, weights, round);
        if (from_first)
          merged[round].add(segment);
        else
          store(segment, state(static_cast<int>(blockIdx.x), delivered), round * Shape::kRound + merged_row());
      }
      ++delivered;
      const bool unit_ends = cursor.segment + 1 == cursor.own.segments;
      const Cursor now = cursor;
      cursor.advance();
      if (!unit_ends && cursor.start() < end) continue;
      fresh = true;
      if (from_first && unit_ends) {
#pragma unroll
        for (int round = 0; round < Shape::kRounds; ++round)
          if (round < rounds) write(merged[round], now, round * Shape::kRound + merged_row());
        continue;
      }
      if (from_first) {
#pragma unroll
        for (int round = 0; round < Shape::kRounds; ++round)
          if (round < rounds)
            store(merged[round], state(static_cast<int>(blockIdx.x), kMostSegments),
                  round * Shape::kRound + merged_row());
      }
      deliver(now, delivered, rounds);
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
                      merging = ring + Shape::kStages * Shape::kStageBytes, queries = merging + Shape::kMergeBytes,
                      barriers = queries + Op::kQueryBytes;
  if (threadIdx.x == 0) {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(barriers + 16 * s, 1);
      ptx::barrier_init(barriers + 16 * s + 8, 4);
    }
    ptx::barrier_init_fence();
  }
  ptx::wait_for_predecessor();
  __syncthreads();
  const DecodePart part = find_part(args.task, args.group);
  if (part.sequence >= static_cast<int>(args.task.sequences)) return;
  const Cursor cursor(args.task, args.group, part);
  const DecodeKernel<Op> kernel{args, ring, barriers, merging, queries, part.quota, part.from + part.quota};
  if (static_cast<int>(threadIdx.x) / 32 == Shape::kWarps)
    kernel.produce(cursor);
  else
    kernel.consume(cursor);
}

}  // namespace lowp::kernels::cuda
