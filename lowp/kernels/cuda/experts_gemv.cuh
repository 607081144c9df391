// Few rows times the packed weights of the experts they go to: the time is that of reading those weights once.
//
// A block for each multiprocessor. Its share of the work is a list of jobs, a tile of 16 outputs of one expert each;
// warps form teams, a team takes a job at a time, its warps taking turns along K, and every warp has a ring of units in
// shared memory that its first lane keeps full by bulk copies (as in gemv.cuh). Partial sums of a bout of jobs wait in
// one of two tables, so that a block synchronizes once a bout.
//
// Two kinds. Gated: gate and up lie by turns in a tile, eight and eight; a block has a stretch of all (expert, tile),
// and the gate's activation times up is what it writes for each place. Combined: a block has a stretch of the tiles,
// for all experts; a bout is a tile, at whose end a row gains what its experts made of it, in their order.
//
// Which weights are read is known once rows are routed. The gated kernel waits for that before it lets its successor
// begin, so that the combined one finds the lists there when it starts and fetches before it waits.
#pragma once

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemv.cuh"

namespace lowp::kernels::cuda {

struct ExpertsGemvArgs {
  ExpertsProduct p;
  Gate gate;
  int units_along_k, tiles;  // of an expert
  int stages;                // of a warp's ring
  int team;                  // warps
  int x_rows;                // rows of x that are staged: those of the batch, or places
};

/// Partial sums of a bout, in floats: a warp of a team has `columns` times 16 for each job, or for each place.
LOWP_HD constexpr int experts_bout_sums(bool gated, int team, int places, int columns) {
  return 16 * (gated ? kGemvWarps * columns : team * places);
}

template <Codes C, Scales S, bool Gated>
__global__ void __launch_bounds__(kGemvThreads, (kGemvBlocks<C, S>)) gemv_experts(const __grid_constant__ ExpertsGemvArgs a) {
  constexpr int kBytes = unit_bytes(C, S), kDepth = unit_depth(C);
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ __align__(8) std::uint64_t ring_barriers[kGemvWarps][kGemvMostStages];
  __shared__ int expert_of[kMostFewPlaces], first_of[kMostFewPlaces], size_of[kMostFewPlaces], row_of[kMostFewPlaces],
      block_of[kMostFewPlaces];
  const ExpertsProduct& p = a.p;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int member = warp % a.team, group = warp / a.team, teams = kGemvWarps / a.team;
  const int padded_k = a.units_along_k * kDepth, stride = gemv_row_stride(padded_k, a.x_rows) / 2;
  const int columns = static_cast<int>(min(p.rows.rows, std::int64_t{8}));
  const std::uint32_t ring = ptx::shared_address(shared) + static_cast<std::uint32_t>(warp * a.stages * kBytes),
                      ready = ptx::shared_address(ring_barriers[warp]);
  auto* x = reinterpret_cast<std::uint32_t*>(shared + kGemvWarps * a.stages * kBytes);
  auto* sums_of_bouts = reinterpret_cast<float*>(x + a.x_rows * stride);

  if constexpr (Gated) ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const int blocks = __ldcg(p.rows.block_count);
  for (int i = thread; i < blocks; i += kGemvWarps * 32) {
    const int first = __ldcg(p.rows.block_first + i), size = __ldcg(p.rows.block_size + i);
    expert_of[i] = __ldcg(p.rows.block_expert + i);
    first_of[i] = first;
    size_of[i] = size;
    for (int j = first; j < first + size; ++j) {
      row_of[j] = __ldcg(p.rows.place_row + j);
      block_of[j] = i;
    }
  }
  if (lane == 0) {
    for (int s = 0; s < a.stages; ++s) ptx::barrier_init(ready + 8 * s, 1);
    ptx::barrier_init_fence();
  }
  __syncthreads();

  // This block's jobs, in bouts.
  const auto share = [&](long of, int i) { return static_cast<int>(of * i / static_cast<int>(gridDim.x)); };
  const long all = Gated ? static_cast<long>(blocks) * a.tiles : a.tiles;
  const int begin = share(all, static_cast<int>(blockIdx.x)), end = share(all, static_cast<int>(blockIdx.x) + 1);
  const int bouts = Gated ? ceil_div(end - begin, teams) : end - begin;
  const auto jobs_of = [&](int bout) { return Gated ? min(teams, end - begin - bout * teams) : blocks; };
  struct Job {
    int block, tile;
  };
  const auto job_at = [&](int bout, int i) -> Job {
    if constexpr (!Gated) return {i, begin + bout};
    const int at = begin + bout * teams + i, block = at / a.tiles;
    return {block, at - block * a.tiles};
  };

  // The next unit that this warp fetches. In shared memory, because the loop below has no registers to spare.
  __shared__ struct Cursor {
    int bout, job, unit;
    const std::uint8_t* from;
  } cursors[kGemvWarps];
  const auto fetch = [&](int stage) {  // by the first lane
    Cursor& next = cursors[warp];
    while (next.bout < bouts && next.job >= jobs_of(next.bout)) ++next.bout, next.job = group;
    if (next.bout >= bouts) return;
    if (next.unit == member) {
      const Job job = job_at(next.bout, next.job);
      next.from = p.units + (static_cast<long>(expert_of[job.block]) * a.tiles + job.tile) * a.units_along_k * kBytes;
    }
    ptx::barrier_expect(ready + 8 * stage, kBytes);
    ptx::load_bytes(ring + stage * kBytes, next.from + static_cast<long>(next.unit) * kBytes, kBytes,
                    ready + 8 * stage);
    next.unit += a.team;
    if (next.unit < a.units_along_k) return;
    next.unit = member;
    next.job += teams;
  };
  if (lane == 0) {
    cursors[warp] = {member < a.units_along_k ? 0 : bouts, group, member, nullptr};
    for (int s = 0; s < a.stages; ++s) fetch(s);
  }

  if constexpr (!Gated) ptx::wait_for_predecessor();
  const auto* source = static_cast<const __nv_bfloat16*>(p.x);
  for (int row = warp; row < a.x_rows; row += kGemvWarps)
    for (int i = lane; i < padded_k / 8; i += 32) {
      uint4 v{0, 0, 0, 0};
      if (8 * i < p.k) v = *reinterpret_cast<const uint4*>(source + row * p.k + 8 * i);
      std::uint32_t* to = x + row * stride + i / 4 * 16 + i % 4;  // as stage_rows() of gemv.cuh
      to[0] = v.x, to[4] = v.y, to[8] = v.z, to[12] = v.w;
    }
  __syncthreads();

  const auto scaled = [&](float sum, int expert, int tile, int in_tile, int row) {
    const int output = tile * kUnitRows + in_tile;
    sum *= __ldg(p.row_scale + static_cast<long>(expert) * a.tiles * kUnitRows + output);
    if (p.x_scale) sum *= p.x_scale[row * p.x_scale_step];
    if (p.bias) sum += __bfloat162float(static_cast<const __nv_bfloat16*>(p.bias)[expert * p.n + output]);
    return sum;
  };
  auto* out = static_cast<__nv_bfloat16*>(p.y);
  const int bout_sums = experts_bout_sums(Gated, a.team, a.x_rows, columns);

  int stage = 0;
  std::uint32_t parity = 0;
  for (int bout = 0; bout < bouts; ++bout) {
    float* const table = sums_of_bouts + bout % 2 * bout_sums;
    const int jobs = jobs_of(bout);
    for (int i = group; i < jobs; i += teams) {
      const int block = job_at(bout, i).block, size = size_of[block], first = first_of[block];
      const int column = first + (g < size ? g : 0);  // columns beyond read the first; nothing is kept of them
      const std::uint32_t* mine = x + 4 * t + (Gated ? row_of[column] : column) * stride;
      float sums[4] = {};
      for (int unit = member; unit < a.units_along_k; unit += a.team) {
        ptx::barrier_wait(ready + 8 * stage, parity);
        Unit<C, S> u;
        u.load(ring + stage * kBytes, lane);
        __syncwarp();
        if (lane == 0) fetch(stage);
        if (++stage == a.stages) {
          stage = 0;
          parity ^= 1;
        }
        u.multiply(mine + unit * (kDepth / 2), sums);
      }
      float* to = table + 16 * (Gated ? warp * columns : member * a.x_rows + first);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (2 * t + j % 2 < size) to[(2 * t + j % 2) * 16 + g + j / 2 * 8] = sums[j];
    }
    __syncthreads();
    if constexpr (Gated) {
      for (int i = thread; i < jobs * columns * 8; i += kGemvWarps * 32) {
        const int at = i % 8, column = i / 8 % columns, job = i / 8 / columns;
        const Job of = job_at(bout, job);
        if (column >= size_of[of.block]) continue;
        const float* from = table + 16 * (job * a.team * columns + column) + at;
        float gate = 0, up = 0;
        for (int w = 0; w < a.team; ++w) {
          gate += from[16 * w * columns];
          up += from[16 * w * columns + 8];
        }
        const int expert = expert_of[of.block], place = first_of[of.block] + column, row = row_of[place];
        gate = scaled(gate, expert, of.tile, at, row);
        up = scaled(up, expert, of.tile, at + 8, row);
        out[place * (p.n / 2) + of.tile * 8 + at] = __float2bfloat16_rn(gated(a.gate, gate, up));
      }
    } else {
      const int tile = begin + bout, top = static_cast<int>(p.rows.top);
      for (int i = thread; i < static_cast<int>(p.rows.rows) * 16; i += kGemvWarps * 32) {
        const int at = i % 16, row = i / 16;
        if (tile * kUnitRows + at >= p.n) continue;
        float sum = 0;
        for (int v = 0; v < top; ++v) {
          const int place = __ldcg(p.rows.visits + row * top + v);
          if (place < 0) continue;
          float product = 0;
          for (int w = 0; w < a.team; ++w) product += table[16 * (w * a.x_rows + place) + at];
          product = scaled(product, expert_of[block_of[place]], tile, at, place);
          sum = round_bf16(sum + round_bf16(round_bf16(product) * __ldcg(p.rows.weights + row * top + v)));
        }
        out[row * p.n + tile * kUnitRows + at] = __float2bfloat16_rn(sum);
      }
    }
  }
}

}  // namespace lowp::kernels::cuda
