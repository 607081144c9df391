// How a grid shares out the pages that decoding sequences see: units, their segments, and which block takes which.
#pragma once

#include "lowp/kernels/cuda/attention_work.cuh"

namespace lowp::kernels::cuda {

/// Flat rows of a tile.
inline constexpr int kDecodeRows = 8;

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

}  // namespace lowp::kernels::cuda
