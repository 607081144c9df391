// Attention of few rows a sequence: the time is that of reading the keys and values once.
//
// A unit is a tile of 16 flat rows of a sequence and one KV head. Its pages are cut into segments, at most
// kMostSegments, by their number alone; a segment is computed by itself and segments are merged in order, so that it
// does not matter where they were computed. One block for each multiprocessor takes a run of segments with its share of
// all pages. One warp keeps a ring of pages full by bulk copies; the others take 16 tokens of a page each, a page being
// four warps' work, and their sums are merged in the order of the warps when the segment ends. Segments that follow
// each other from a unit's first on are merged in registers; of units that several blocks share, each leaves what it
// has in memory, and the one that ends last merges.
#pragma once

#include "lowp/kernels/cuda/attention_piece.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kDecodeRows = 16;
inline constexpr int kStates =
    kMostSegments + 1;  // that a block may leave: segments one by one, or a unit's first ones

struct DecodeArgs {
  AttentionTask task;
  int group;               // query heads of a KV head
  float* states;           // [blocks][kStates][kDecodeRows][dim + 2]: sums, largest score, sum of weights
  std::uint32_t* arrived;  // [tile numbers][kv_heads]: segments of a unit that are done; zero between launches
};

template <class Op>
struct DecodeShape {
  static constexpr int kDim = Op::kDim, kWarps = kDim == 256 ? 4 : 8, kTeams = kWarps / 4;
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

/// Pages of a segment, where a unit has so many.
__device__ __forceinline__ int segment_pages(int pages) {
  const int least = (pages + kMostSegments - 1) / kMostSegments;
  return least <= 2 ? 2 : 1 << (32 - __clz(least - 1));
}

/// Where the walk over all segments stands. Segments are numbered by the pages before them.
struct Cursor {
  const AttentionTask& task;
  int group, sequence;
  std::int64_t base;  // pages before this sequence's
  SequenceWork work;
  int units, segments, length;  // of the sequence; pages of a segment
  int unit, segment;

  __device__ Cursor(const AttentionTask& task, int group, int sequence, std::int64_t base)
      : task(task), group(group), sequence(sequence), base(base), work(task, sequence), unit(0), segment(0) {
    measure();
  }
  __device__ void measure() {
    const int kv_heads = task.kv.layout.kv_heads;
    units = work.rows > 0 ? ceil_div(work.rows * group, kDecodeRows) * kv_heads : 0;
    length = segment_pages(work.pages);
    segments = ceil_div(work.pages, length);
  }
  __device__ std::int64_t cost() const { return static_cast<std::int64_t>(units) * work.pages; }
  __device__ std::int64_t start(int at) const {
    return base + static_cast<std::int64_t>(unit) * work.pages + at * length;
  }
  __device__ std::int64_t start() const { return start(segment); }
  __device__ int pages() const { return min(length, work.pages - segment * length); }
  __device__ int first_page() const { return work.first_page + segment * length; }
  __device__ int tile() const { return unit / task.kv.layout.kv_heads; }
  __device__ int kv_head() const { return unit % task.kv.layout.kv_heads; }
  __device__ bool inside() const { return sequence < static_cast<int>(task.sequences); }

  /// Goes to the first segment that begins at page `from` of all or later, in this sequence: false if none does.
  __device__ bool seek(std::int64_t from) {
    if (units == 0) return false;
    const std::int64_t skip = max(from - base, std::int64_t{0});
    unit = static_cast<int>(skip / work.pages);
    segment = ceil_div(static_cast<int>(skip % work.pages), length);
    if (segment >= segments) {
      ++unit;
      segment = 0;
    }
    return unit < units;
  }
  __device__ void advance() {
    if (++segment < segments) return;
    segment = 0;
    if (++unit < units) return;
    unit = 0;
    do {
      base += cost();
      if (++sequence >= static_cast<int>(task.sequences)) return;
      work = SequenceWork(task, sequence);
      measure();
    } while (units == 0);
  }
};

/// A share of all pages: that of block `index` of `count`.
__device__ __forceinline__ std::int64_t share(std::int64_t total, int index, int count) {
  return total * index / count;
}

struct DecodeStart {
  int sequence;
  std::int64_t base, total;
};

// Where this block begins: the threads count the pages of all sequences.
__device__ __forceinline__ DecodeStart find_start(const AttentionTask& task, int group) {
  __shared__ std::int64_t sums[32];
  __shared__ DecodeStart found;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), lane = thread & 31,
            warp = thread / 32, sequences = static_cast<int>(task.sequences);
  const int each = ceil_div(sequences, threads), first = min(thread * each, sequences),
            last = min(first + each, sequences);
  std::int64_t mine = 0;
  for (int s = first; s < last; ++s) mine += Cursor(task, group, s, 0).cost();
  std::int64_t before = mine;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const std::int64_t other = __shfl_up_sync(~0u, before, step);
    if (lane >= step) before += other;
  }
  if (lane == 31) sums[warp] = before;
  if (thread == 0) found.sequence = sequences;
  __syncthreads();
  std::int64_t total = 0;
  for (int w = 0; w < threads / 32; ++w) {
    if (w == warp) before += total;
    total += sums[w];
  }
  const std::int64_t low = share(total, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  std::int64_t base = before - mine;
  int own = sequences;
  for (int s = first; s < last; ++s) {
    Cursor cursor(task, group, s, base);
    if (base + cursor.cost() > low && cursor.seek(low)) {
      own = s;
      break;
    }
    base += cursor.cost();
  }
  if (own < sequences) atomicMin(&found.sequence, own);
  __syncthreads();
  if (own < sequences && found.sequence == own) found.base = base;
  __syncthreads();
  return {found.sequence, found.base, total};
}

template <class Op>
struct DecodeKernel {
  using Shape = DecodeShape<Op>;
  using Place = RingPlace<Shape::kStages>;
  static constexpr int kDim = Op::kDim;

  const DecodeArgs& args;
  std::uint32_t ring, barriers, merging, queries;
  std::int64_t total, end;  // pages of all; the block's last segment begins before `end`

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
      return static_cast<const unsigned char*>(page) + kv.layer_offset + cursor.kv_head() * Op::kHeadBytes;
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
    tile.find<Op>(args.task, args.group, cursor.work, cursor.kv_head(), cursor.tile() * kDecodeRows, lane, rows, power);
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
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      const float2 stats = ptx::load_shared_float2(stats_at(w, merged_row()));
      Merged next;
      next.most = stats.x, next.sum = stats.y;
#pragma unroll
      for (int e = 0; e < Shape::kEach; ++e)
        next.mixed[e] = ptx::load_shared_float2(sums_at(w, merged_row()) + 4 * merged_value(e));
      all.add(next);
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
    const int flat = cursor.tile() * kDecodeRows + row;
    if (!takes_part() || flat >= cursor.work.rows * args.group) return;
    auto* to = static_cast<std::uint16_t*>(args.task.out) +
               flat_offset(cursor.work, flat, args.group, cursor.kv_head(), args.task.out_stride, kDim);
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
    const int thread = static_cast<int>(threadIdx.x), blocks = static_cast<int>(gridDim.x);
    std::uint32_t* arrived = args.arrived +
                             (tile_base<kDecodeRows>(cursor.sequence, cursor.work.begin, args.group) + cursor.tile()) *
                                 args.task.kv.layout.kv_heads +
                             cursor.kv_head();
    __threadfence();
    ptx::sync_threads(1, Shape::kConsumers);
    if (thread == 0) {
      last = atomicAdd(arrived, count) + count == static_cast<std::uint32_t>(cursor.segments);
      if (last) {
        *arrived = 0;
        // Who has what: the first block its segments as one, the others one by one.
        const auto bound = [&](int block) { return share(total, block + 1, blocks); };
        int block = static_cast<int>(cursor.start(0) * blocks / total), own = 0;
        while (bound(block) <= cursor.start(0)) ++block;
        states[0] = state(block, kMostSegments);
        bool first = true;
        for (int k = 1; k < cursor.segments; ++k) {
          while (bound(block) <= cursor.start(k)) {
            ++block;
            first = false;
            own = 0;
          }
          states[k] = first ? nullptr : state(block, own++);
        }
      }
    }
    ptx::sync_threads(1, Shape::kConsumers);
    if (!last) return;
    __threadfence();
    if (!takes_part()) return;
    for (int round = 0; round < rounds; ++round) {
      const int row = round * Shape::kRound + merged_row();
      Merged all;
      for (int k = 0; k < cursor.segments; k += 4) {
        Merged next[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.segments && states[k + i]) next[i] = load(states[k + i], row);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (k + i < cursor.segments && states[k + i]) all.add(next[i]);
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
        rounds = ceil_div(min(kDecodeRows, cursor.work.rows * args.group - cursor.tile() * kDecodeRows), Shape::kRound);
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
      const bool unit_ends = cursor.segment + 1 == cursor.segments;
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
  const DecodeStart start = find_start(args.task, args.group);  // synchronizes the block
  if (start.sequence >= static_cast<int>(args.task.sequences)) return;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  Cursor cursor(args.task, args.group, start.sequence, start.base);
  cursor.seek(share(start.total, block, blocks));
  const DecodeKernel<Op> kernel{
      args, ring, barriers, merging, queries, start.total, share(start.total, block + 1, blocks)};
  if (static_cast<int>(threadIdx.x) / 32 == Shape::kWarps)
    kernel.produce(cursor);
  else
    kernel.consume(cursor);
}

}  // namespace lowp::kernels::cuda
