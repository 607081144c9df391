// Few rows times the packed weights of the experts they go to: the time is that of reading those weights once.
//
// A block for each multiprocessor. Its share of the work is a list of jobs, a tile of 16 outputs of one expert each;
// warps form teams, a team takes a job at a time, its warps taking turns along K, and every warp has a ring of units in
// shared memory that its first lane keeps full by bulk copies. Partial sums of a bout of jobs wait in
// one of two tables, so that a block synchronizes once a bout.
//
// Two kinds. Gated: gate and up lie by turns in a tile, eight and eight; a block has a stretch of all (expert, tile),
// and the gate's activation times up is what it writes for each place. Combined: a block has a stretch of the tiles,
// for all experts; a bout is a tile, at whose end a row gains what its experts made of it, in their order.
//
// Which weights are read is known once rows have chosen, which every block finds out by itself, from the router's
// scores. The gated kernel waits for these before it lets its successor begin, so that the combined one finds them
// there when it starts, chooses, and fetches before it waits.
#pragma once

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemv.cuh"
#include "lowp/kernels/cuda/routing.cuh"

namespace lowp::kernels::cuda {

struct ExpertsGemvArgs {
  ExpertsProduct p;
  ExpertChoice choice;
  Gate gate;
  int units_along_k, tiles;  // of an expert
  int stages;                // of a warp's ring
  int team;                  // warps
  int x_rows;                // rows of x that are staged: those of the batch, or places
};

/// What a block knows of the rows' choices: blocks are the experts that rows go to.
struct FewChosen {
  std::uint32_t masks[kMostFewExperts];  // by expert: its rows
  std::int16_t first[kMostFewExperts];   // and its first place
  std::int32_t chosen[kMostFewPlaces];
  float weights[kMostFewPlaces];                                                              // [rows, top]
  std::int16_t expert_of[kMostFewPlaces], first_of[kMostFewPlaces], size_of[kMostFewPlaces];  // by block
  std::int16_t row_of[kMostFewPlaces], expert_at[kMostFewPlaces];                             // by place
  std::uint32_t totals[kGemvWarps];
  std::int16_t place_of[kMostFewPlaces];  // [rows, top], -1 of nobody's
  float weight_at[kMostFewPlaces];        // by place
  int places;

  /// By the whole block, which has a thread for each expert; returns the blocks. Warps that have no row call
  /// meanwhile(), which may not synchronize the block.
  template <class Meanwhile>
  __device__ __forceinline__ int choose(const ExpertChoice& choice, const RoutedRows& rows,
                                        const Meanwhile& meanwhile) {
    static_assert(kGemvThreads >= kMostFewExperts && kGemvWarps >= 8);
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32,
              experts = static_cast<int>(rows.experts), top = static_cast<int>(rows.top);
    if (thread < kMostFewExperts) masks[thread] = 0;
    __syncthreads();
    if (warp < rows.rows) {
      std::int32_t* const own = chosen + warp * top;
      if (experts <= 128)
        choose_experts<4>(choice, experts, top, warp, own, weights + warp * top, masks);
      else
        choose_experts<kMostFewExperts / 32>(choice, experts, top, warp, own, weights + warp * top, masks);
    } else {
      meanwhile();
    }
    __syncthreads();
    std::uint32_t mask = thread < kMostFewExperts ? masks[thread] : 0;
    const int size = __popc(mask);
    const std::uint32_t counts = static_cast<std::uint32_t>(size) << 16 | (size > 0);
    std::uint32_t sum = counts;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const std::uint32_t other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) totals[warp] = sum;
    __syncthreads();
    std::uint32_t all = 0;
#pragma unroll
    for (int w = 0; w < kGemvWarps; ++w) {
      if (w == warp) sum += all;
      all += totals[w];
    }
    sum -= counts;
    int place = static_cast<int>(sum >> 16);
    if (thread < kMostFewExperts) first[thread] = static_cast<std::int16_t>(place);
    if (size) {
      const int block = static_cast<int>(sum & 0xFFFF);
      expert_of[block] = static_cast<std::int16_t>(thread);
      first_of[block] = static_cast<std::int16_t>(place);
      size_of[block] = static_cast<std::int16_t>(size);
#pragma unroll 1
      for (; mask; mask &= mask - 1, ++place) {
        row_of[place] = static_cast<std::int16_t>(__ffs(static_cast<int>(mask)) - 1);
        expert_at[place] = static_cast<std::int16_t>(thread);
      }
    }
    if (thread == 0) places = static_cast<int>(all >> 16);
    __syncthreads();
    return static_cast<int>(all & 0xFFFF);
  }
  /// Then: the places of rows' visits, and the weights at them. Ends without a barrier.
  __device__ __forceinline__ void find_places(const RoutedRows& rows) {
    const int i = static_cast<int>(threadIdx.x), top = static_cast<int>(rows.top);
    if (i >= static_cast<int>(rows.rows) * top) return;
    const int at = chosen[i] < 0 ? -1 : place(i / top, chosen[i]);
    place_of[i] = static_cast<std::int16_t>(at);
    if (at >= 0) weight_at[at] = weights[i];
  }
  /// The place of a row's visit to an expert.
  __device__ __forceinline__ int place(int row, int expert) const {
    return first[expert] + __popc(masks[expert] & ((1u << row) - 1));
  }
};

/// Partial sums of a bout, in floats: a warp of a team has `columns` times 16 for each job, or for each place.
LOWP_HD constexpr int experts_bout_sums(bool gated, int team, int places, int columns) {
  return 16 * (gated ? kGemvWarps * columns : team * places);
}

template <Codes C, Scales S, bool Gated>
__global__ void __launch_bounds__(kGemvThreads, (kGemvBlocks<C, S>))
    gemv_experts(const __grid_constant__ ExpertsGemvArgs a) {
  constexpr int kBytes = unit_bytes(C, S), kDepth = unit_depth(C);
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ __align__(8) std::uint64_t ring_barriers[kGemvWarps][kExpertsStages];
  __shared__ FewChosen few;
  const ExpertsProduct& p = a.p;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int member = warp % a.team, group = warp / a.team, teams = kGemvWarps / a.team;
  const int padded_k = a.units_along_k * kDepth, stride = gemv_row_stride(padded_k, a.x_rows) / 2;
  const int columns = static_cast<int>(min(p.rows.rows, std::int64_t{8}));
  const std::uint32_t ring = ptx::shared_address(shared) + static_cast<std::uint32_t>(warp * a.stages * kBytes),
                      ready = ptx::shared_address(ring_barriers[warp]);
  auto* x = reinterpret_cast<std::uint32_t*>(shared + kGemvWarps * a.stages * kBytes);
  auto* sums_of_bouts = reinterpret_cast<float*>(x + a.x_rows * stride);

  if (lane == 0) {
    for (int s = 0; s < a.stages; ++s) ptx::barrier_init(ready + 8 * s, 1);
    ptx::barrier_init_fence();
  }
  if constexpr (Gated) ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const auto stage = [&](int first, int step) {  // x, as GemvRows keeps it
    const int chunks = padded_k / 8;
#pragma unroll 2
    for (int c = first; c < a.x_rows * chunks; c += step) {
      const int row = c / chunks, i = c - row * chunks;
      uint4 v{0, 0, 0, 0};
      if (8 * i < p.k) v = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(p.x) + row * p.k + 8 * i);
      std::uint32_t* to = x + row * stride + i / 4 * 16 + i % 4;
      to[0] = v.x, to[4] = v.y, to[8] = v.z, to[12] = v.w;
    }
  };
  const int rows = static_cast<int>(p.rows.rows);
  const int blocks = few.choose(a.choice, p.rows, [&] {
    if constexpr (Gated) stage(thread - 32 * rows, kGemvThreads - 32 * rows);
  });
  if constexpr (!Gated) few.find_places(p.rows);

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

  // Unit number i of this warp into a stage, if there is one; by one lane.
  const int own_units = max(0, ceil_div(a.units_along_k - member, a.team)),
            own_jobs = max(0, ceil_div(blocks - group, teams));
  const auto fetch = [&](int i, int stage) {
    if (own_units == 0) return;
    const int number = i / own_units, unit = member + (i - number * own_units) * a.team;  // of its jobs
    int bout = number, job = group;
    if constexpr (!Gated) {
      if (own_jobs == 0) return;
      bout = number / own_jobs;
      job = group + (number - bout * own_jobs) * teams;
    }
    if (bout >= bouts || job >= jobs_of(bout)) return;
    const Job of = job_at(bout, job);
    const long tile = static_cast<long>(few.expert_of[of.block]) * a.tiles + of.tile;
    if (unit == 0) ptx::prefetch(p.row_scale + tile * kUnitRows);
    ptx::barrier_expect(ready + 8 * stage, kBytes);
    ptx::load_bytes(ring + stage * kBytes, p.units + (tile * a.units_along_k + unit) * kBytes, kBytes,
                    ready + 8 * stage);
  };
  if (lane < a.stages) fetch(lane, lane);

  if constexpr (!Gated) ptx::wait_for_predecessor();
  if constexpr (!Gated) stage(thread, kGemvThreads);
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

  int slot = 0, done = 0;  // of the ring; units
  std::uint32_t parity = 0;
#pragma unroll 1
  for (int bout = 0; bout < bouts; ++bout) {
    float* const table = sums_of_bouts + bout % 2 * bout_sums;
    const int jobs = jobs_of(bout);
#pragma unroll 1
    for (int i = group; i < jobs; i += teams) {
      const int block = job_at(bout, i).block, size = few.size_of[block], first = few.first_of[block];
      const int column = first + (g < size ? g : 0);  // columns beyond read the first; nothing is kept of them
      const std::uint32_t* mine = x + 4 * t + (Gated ? few.row_of[column] : column) * stride;
      float sums[4] = {};
#pragma unroll 1
      for (int unit = member; unit < a.units_along_k; unit += a.team) {
        ptx::barrier_wait(ready + 8 * slot, parity);
        Unit<C, S> u;
        u.load(ring + slot * kBytes, lane);
        __syncwarp();
        if (lane == 0) fetch(done + a.stages, slot);
        ++done;
        if (++slot == a.stages) {
          slot = 0;
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
#pragma unroll 1
      for (int i = thread; i < jobs * columns * 8; i += kGemvThreads) {
        const int at = i % 8, column = i / 8 % columns, job = i / 8 / columns;
        const Job of = job_at(bout, job);
        if (column >= few.size_of[of.block]) continue;
        const float* from = table + 16 * (job * a.team * columns + column) + at;
        float gate = 0, up = 0;
#pragma unroll 1
        for (int w = 0; w < a.team; ++w) {
          gate += from[16 * w * columns];
          up += from[16 * w * columns + 8];
        }
        const int expert = few.expert_of[of.block], place = few.first_of[of.block] + column, row = few.row_of[place];
        gate = scaled(gate, expert, of.tile, at, row);
        up = scaled(up, expert, of.tile, at + 8, row);
        out[place * (p.n / 2) + of.tile * 8 + at] = __float2bfloat16_rn(gated(a.gate, gate, up));
      }
    } else {
      const int tile = begin + bout, top = static_cast<int>(p.rows.top);
#pragma unroll 1
      for (int i = thread; i < few.places * 16; i += kGemvThreads) {
        float sum = 0;
#pragma unroll 1
        for (int w = 0; w < a.team; ++w) sum += table[16 * w * a.x_rows + i];
        sum = round_bf16(scaled(sum, few.expert_at[i / 16], tile, i % 16, i / 16));
        table[i] = round_bf16(sum * few.weight_at[i / 16]);
      }
      __syncthreads();
#pragma unroll 1
      for (int i = thread; i < static_cast<int>(p.rows.rows) * 16; i += kGemvThreads) {
        const int at = i % 16, row = i / 16;
        if (tile * kUnitRows + at >= p.n) continue;
        float sum = 0;
#pragma unroll 1
        for (int v = 0; v < top; ++v) {
          const int place = few.place_of[row * top + v];
          if (place >= 0) sum = round_bf16(sum + table[16 * place + at]);
        }
        out[row * p.n + tile * kUnitRows + at] = __float2bfloat16_rn(sum);
      }
    }
  }
}

}  // namespace lowp::kernels::cuda
