// Few rows times the packed weights of the experts they go to: the time is that of reading those weights once.
//
// A block for each multiprocessor. Its share of the work is a list of jobs, a tile of 16 outputs of one expert each;
// warps form teams, a team takes a job at a time, its warps taking turns along K, and every warp has a ring of units in
// shared memory that its first lane keeps full by bulk copies. Partial sums of a bout of jobs wait in one of two
// tables, so that a block synchronizes once a bout.
//
// Two products. Of gate and up, which lie by turns in a tile, eight and eight, a block has a stretch of all (expert,
// tile), and the gate's activation times up is what it writes for each place. Of down it has a stretch of the tiles,
// for all experts; a bout is a tile, at whose end a row gains what its experts made of it, in their order.
//
// Both, the router and the norm in front are one kernel where nothing else has to happen between them. Every block
// normalises the rows, multiplies them by the router's weights of some experts, reads all scores, chooses by itself and
// goes through its share, down's weights coming into the ring while the last of gate and up are multiplied. Scores and
// gated values go from block to block by mail (experts_mail.cuh), so all blocks must run at the same time: they do, as
// there is one for each multiprocessor, and nothing behind this kernel begins before all of them have.
//
// Otherwise the products are kernels of their own. The gated one waits for the scores before it lets its successor
// begin, so that down's finds them there when it starts, chooses, and fetches before it waits.
#pragma once

#include "lowp/kernels/cuda/experts_chosen.cuh"
#include "lowp/kernels/cuda/experts_mail.cuh"
#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemv.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kLogGemvWarps = 4;
static_assert(kGemvWarps == 1 << kLogGemvWarps);

struct ExpertsGemvPart {
  ExpertsProduct p;          // units null: another launch's
  int units_along_k, tiles;  // of an expert
  int log_team;              // of the warps that share a job

  __device__ __forceinline__ int team() const { return 1 << log_team; }
  __device__ __forceinline__ int teams() const { return kGemvWarps >> log_team; }
  __device__ __forceinline__ int member(int warp) const { return warp & (team() - 1); }
  __device__ __forceinline__ int group(int warp) const { return warp >> log_team; }
  /// Units of a job that a warp has, and jobs of `all` that it has a part in.
  __device__ __forceinline__ int own_units(int warp) const {
    return max(0, units_along_k - member(warp) + team() - 1) >> log_team;
  }
  __device__ __forceinline__ int own_jobs(int warp, int all) const {
    return max(0, all - group(warp) + teams() - 1) >> (kLogGemvWarps - log_team);
  }
};

struct ExpertsGemvArgs {
  ExpertsGemvPart gate_up, down;
  ExpertChoice choice;
  int rows, experts, top;
  GemvInput input;  // of gate and up
  Gate gate;
  // Where both products are there:
  const __nv_bfloat16 *router, *router_bias;  // [experts, hidden], [experts] or null
  ExpertsMail mail;

  int stages;     // of a warp's ring
  int tables_at;  // of partial sums, in shared memory
};

/// Partial sums of a bout, in floats: a warp of a team has `rows` times 16 for each job, or for each place.
LOWP_HD constexpr int experts_bout_sums(bool gated, int team, int places, int rows) {
  return 16 * (gated ? kGemvWarps * rows : team * places);
}

/// A row of activations among others in shared memory, as GemvRows keeps it, in words.
__device__ __forceinline__ int few_row_stride(const ExpertsGemvPart& part, int unit_depth) {
  return gemv_row_stride(part.units_along_k * unit_depth, 8) / 2;
}

/// The scores of this block's experts: every gridDim.x-th.
struct FewScores {
  float sums[2][kMostFewRows][kGemvWarps];

  /// The router's weights of the block's first expert, each thread those that it multiplies.
  __device__ __forceinline__ void fetch(const ExpertsGemvArgs& a, uint4* first) const {
    const int chunks = static_cast<int>(a.gate_up.p.k) / 8;
    if (static_cast<int>(blockIdx.x) >= a.experts) return;
    for (int c = static_cast<int>(threadIdx.x); c < chunks; c += kGemvThreads)
      first[c] = __ldg(reinterpret_cast<const uint4*>(a.router) + blockIdx.x * static_cast<unsigned>(chunks) + c);
  }

  /// x: the rows; first: what fetch() has brought.
  __device__ __forceinline__ void write(const ExpertsGemvArgs& a, const std::uint32_t* x, int stride,
                                        const uint4* first, std::uint32_t* to) {
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32,
              chunks = static_cast<int>(a.gate_up.p.k) / 8;
    int turn = 0;
#pragma unroll 1
    for (int expert = static_cast<int>(blockIdx.x); expert < a.experts; expert += static_cast<int>(gridDim.x)) {
#pragma unroll 1
      for (int row = 0; row < a.rows; ++row) {
        float sum = 0;
#pragma unroll 1
        for (int c = thread; c < chunks; c += kGemvThreads) {
          const uint4 own = expert == static_cast<int>(blockIdx.x)
                                ? first[c]
                                : __ldg(reinterpret_cast<const uint4*>(a.router) + expert * chunks + c);
          const Bf16x8 weight{{own.x, own.y, own.z, own.w}};
          const std::uint32_t* at = x + row * stride + c / 4 * 16 + c % 4;
          const Bf16x8 values{{at[0], at[4], at[8], at[12]}};
          float v[8], w[8];
          values.values(v);
          weight.values(w);
#pragma unroll
          for (int j = 0; j < 8; ++j) sum = __fmaf_rn(v[j], w[j], sum);
        }
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
        if (lane == 0) sums[turn][row][warp] = sum;
      }
      __syncthreads();
      if (thread < a.rows) {
        float sum = a.router_bias ? __bfloat162float(a.router_bias[expert]) : 0, all = 0;
#pragma unroll
        for (int w = 0; w < kGemvWarps; ++w) all += sums[turn][thread][w];
        ptx::store_relaxed(to + thread * a.experts + expert, float_bits(round_bf16(all + sum)) >> 16);
      }
      turn ^= 1;
    }
  }
};

/// What a block has: jobs, of all (expert, tile) of gate and up; tiles of down.
struct FewShare {
  int first_job, jobs, first_tile, tiles;
};

template <Codes C, Scales S>
__global__ void __launch_bounds__(kGemvThreads, (kGemvBlocks<C, S>))
    gemv_experts(const __grid_constant__ ExpertsGemvArgs a) {
  constexpr int kBytes = unit_bytes(C, S), kDepth = unit_depth(C);
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ __align__(8) std::uint64_t ring_barriers[kGemvWarps][kGemvMostStages];
  __shared__ FewChosen few;
  __shared__ FewScores of_scores;
  __shared__ typename GemvRows<8>::Shared of_rows;
  __shared__ FewShare own;
  __shared__ int turn;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const bool gates = a.gate_up.p.units, combines = a.down.p.units, together = gates && combines;
  const std::uint32_t ring = ptx::shared_address(shared) + static_cast<std::uint32_t>(warp * a.stages * kBytes),
                      ready = ptx::shared_address(ring_barriers[warp]);
  auto* const x = reinterpret_cast<std::uint32_t*>(shared + kGemvWarps * a.stages * kBytes);
  auto* const tables = reinterpret_cast<float*>(shared + a.tables_at);

  const auto mail = [&] { return ExpertsMailHalf(a.mail, turn); };  // made where it is used: registers are short

  if (lane == 0) {
    for (int s = 0; s < a.stages; ++s) ptx::barrier_init(ready + 8 * s, 1);
    ptx::barrier_init_fence();
  }
  if (gates) {
    GemvRows<8> input(a.input, a.rows, static_cast<int>(a.gate_up.p.k), a.gate_up.units_along_k * kDepth, x, of_rows);
    if (together) {
      ptx::launch_dependents();
      of_scores.fetch(a, reinterpret_cast<uint4*>(tables));
    }
    ptx::wait_for_predecessor();
    if (!together) ptx::launch_dependents();
    if (together && thread == kGemvThreads - 1) turn = ExpertsMailHalf::take_turn(a.mail);
    input.stage();
    if (together) {
      of_scores.write(a, x, few_row_stride(a.gate_up, kDepth), reinterpret_cast<const uint4*>(tables), mail().scores());
      mail().empty_other(turn, kGemvThreads - 1 - thread, kGemvThreads);
    }
  } else {
    ptx::launch_dependents();
  }
  few.choose(
      a.choice, a.rows, a.experts, a.top,
      [&](int row, auto& score) {
        constexpr int kEach = sizeof(score) / sizeof(float);
        if (!together) return load_scores(a.choice, a.experts, row, score);
        const std::uint32_t* from = mail().scores() + row * a.experts + lane;
        bool there;
        do {
          there = true;
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
            if (32 * i + lane >= a.experts) continue;
            const std::uint32_t word = ptx::load_relaxed(from + 32 * i);
            there &= word != ExpertsMailHalf::kEmpty;
            score[i] = bits_float(word << 16);
          }
        } while (!there);
        __syncwarp();
      },
      [&] {
        const auto part = [](int of, int& first, int& count) {
          const unsigned all = static_cast<unsigned>(of);
          first = static_cast<int>(all * blockIdx.x / gridDim.x);
          count = static_cast<int>(all * (blockIdx.x + 1) / gridDim.x) - first;
        };
        part(gates ? few.blocks * a.gate_up.tiles : 0, own.first_job, own.jobs);
        part(combines ? a.down.tiles : 0, own.first_tile, own.tiles);
      });

  // Unit number i of this warp into a stage, if there is one; by one lane. A team has every teams-th job, a warp every
  // team-th unit of it.
  const auto fetch = [&](int i, int stage) {
    const auto load = [&](const ExpertsGemvPart& part, int block, int tile, int unit) {
      const long at = static_cast<long>(few.expert_of[block]) * part.tiles + tile;
      if (unit == 0) ptx::prefetch(part.p.row_scale + at * kUnitRows);
      ptx::barrier_expect(ready + 8 * stage, kBytes);
      ptx::load_bytes(ring + stage * kBytes, part.p.units + (at * part.units_along_k + unit) * kBytes, kBytes,
                      ready + 8 * stage);
    };
    if (own.jobs > 0) {
      const ExpertsGemvPart& part = a.gate_up;
      const int units = part.own_units(warp), all = part.own_jobs(warp, own.jobs) * units;
      if (i < all) {
        const int number = i / units, job = own.first_job + part.group(warp) + number * part.teams(),
                  block = job / part.tiles;
        return load(part, block, job - block * part.tiles, part.member(warp) + (i - number * units << part.log_team));
      }
      i -= all;
    }
    const ExpertsGemvPart& part = a.down;
    const int units = part.own_units(warp), of_tile = part.own_jobs(warp, few.blocks);
    if (i >= own.tiles * of_tile * units) return;
    const int number = i / units, tile = number / of_tile;
    load(part, part.group(warp) + (number - tile * of_tile) * part.teams(), own.first_tile + tile,
         part.member(warp) + (i - number * units << part.log_team));
  };
  if (lane < a.stages) fetch(lane, lane);
  __syncwarp();

  int slot = 0, done = 0;  // of the ring; units
  std::uint32_t parity = 0;
  // A warp's part of a job.
  const auto multiply = [&](const ExpertsGemvPart& part, int member, const std::uint32_t* mine, float(&sums)[4]) {
#pragma unroll 1
    for (int unit = member; unit < part.units_along_k; unit += part.team()) {
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
  };
  const auto keep = [&](float* to, int size, const float(&sums)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (2 * t + j % 2 < size) to[(2 * t + j % 2) * 16 + g + j / 2 * 8] = sums[j];
  };
  const auto scaled = [&](const ExpertsGemvPart& part, float sum, int expert, int output, int row) {
    sum *= __ldg(part.p.row_scale + static_cast<long>(expert) * part.tiles * kUnitRows + output);
    if (part.p.x_scale) sum *= part.p.x_scale[row * part.p.x_scale_step];
    if (part.p.bias && output < part.p.n)
      sum += __bfloat162float(static_cast<const __nv_bfloat16*>(part.p.bias)[expert * part.p.n + output]);
    return sum;
  };

  if (gates) {
    const ExpertsGemvPart& part = a.gate_up;
    const int member = part.member(warp), group = part.group(warp), teams = part.teams(),
              stride = few_row_stride(part, kDepth), width = static_cast<int>(part.p.n) / 2;
    int which = 0;  // of the tables
#pragma unroll 1
    for (int begin = 0; begin < own.jobs; begin += teams, which ^= 1) {
      float* const table = tables + which * experts_bout_sums(true, part.team(), 0, a.rows);
      const int bout = min(teams, own.jobs - begin);
      if (group < bout) {
        const int block = (own.first_job + begin + group) / part.tiles, size = few.size_of[block],
                  column = few.first_of[block] + (g < size ? g : 0);  // columns beyond read the first and are not kept
        float sums[4] = {};
        multiply(part, member, x + 4 * t + few.row_of[column] * stride, sums);
        keep(table + 16 * warp * a.rows, size, sums);
      }
      __syncthreads();
      // Whole warps: neighbours write a word together.
#pragma unroll 1
      for (int from = 32 * warp; from < bout * a.rows * 8; from += kGemvThreads) {
        const int i = from + lane, at = i % 8, column = i / 8 % a.rows, job = i / 8 / a.rows;
        const int block = (own.first_job + begin + min(job, bout - 1)) / part.tiles,
                  tile = own.first_job + begin + job - block * part.tiles, place = few.first_of[block] + column;
        const bool valid = job < bout && column < few.size_of[block];
        float value = 0;
        if (valid) {
          const float* sums = table + 16 * (job * part.team() * a.rows + column) + at;
          float gate = 0, up = 0;
#pragma unroll 1
          for (int w = 0; w < part.team(); ++w) {
            gate += sums[16 * w * a.rows];
            up += sums[16 * w * a.rows + 8];
          }
          const int expert = few.expert_of[block], row = few.row_of[place];
          value = gated(a.gate, scaled(part, gate, expert, tile * kUnitRows + at, row),
                        scaled(part, up, expert, tile * kUnitRows + at + 8, row));
        }
        const float next = __shfl_down_sync(~0u, value, 1);
        auto* const out = together ? mail().gated() : static_cast<std::uint32_t*>(part.p.y);
        if (valid && at % 2 == 0)
          ptx::store_relaxed(out + (place * width + tile * 8 + at) / 2, ptx::cvt_bf16x2(value, next));
      }
    }
  }
  if (own.tiles == 0) return;

  const ExpertsGemvPart& part = a.down;
  const int member = part.member(warp), group = part.group(warp), teams = part.teams(),
            stride = few_row_stride(part, kDepth), places = a.rows * a.top;
  if (!together) ptx::wait_for_predecessor();
  {  // the gated rows, as GemvRows keeps rows
    const auto* from = static_cast<const uint4*>(together ? static_cast<const void*>(mail().gated()) : part.p.x);
    const int chunks = static_cast<int>(part.p.k) / 8, padded = part.units_along_k * (kDepth / 8),
              all = few.places * padded;
    if (together) __syncthreads();  // x and the tables are free
#pragma unroll 1
    for (int begin = thread; begin < all; begin += 4 * kGemvThreads) {
      uint4 v[4];
      const auto each = [&](const auto& work) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int c = begin + i * kGemvThreads, row = c / padded, at = c - row * padded;
          if (c < all) work(v[i], row, at);
        }
      };
      each([&](uint4& to, int row, int at) {
        to = uint4{};
        if (at < chunks) to = ptx::load_relaxed_16(from + row * chunks + at);
      });
      each([&](uint4& to, int row, int at) {
        while (together && !ExpertsMailHalf::is_there(to)) to = ptx::load_relaxed_16(from + row * chunks + at);
        std::uint32_t* place = x + row * stride + at / 4 * 16 + at % 4;
        place[0] = to.x, place[4] = to.y, place[8] = to.z, place[12] = to.w;
      });
    }
  }
  __syncthreads();
  auto* const out = static_cast<__nv_bfloat16*>(part.p.y);
#pragma unroll 1
  for (int i = 0; i < own.tiles; ++i) {
    float* const table = tables + i % 2 * experts_bout_sums(false, part.team(), places, a.rows);
    const int tile = own.first_tile + i;
#pragma unroll 1
    for (int block = group; block < few.blocks; block += teams) {
      const int size = few.size_of[block], first = few.first_of[block];
      float sums[4] = {};
      multiply(part, member, x + 4 * t + (first + (g < size ? g : 0)) * stride, sums);
      keep(table + 16 * (member * places + first), size, sums);
    }
    __syncthreads();
#pragma unroll 1
    for (int j = thread; j < few.places * 16; j += kGemvThreads) {
      float sum = 0;
#pragma unroll 1
      for (int w = 0; w < part.team(); ++w) sum += table[16 * w * places + j];
      const int place = j / 16;
      sum = round_bf16(scaled(part, sum, few.expert_at[place], tile * kUnitRows + j % 16, place));
      table[j] = round_bf16(sum * few.weight_at[place]);
    }
    __syncthreads();
#pragma unroll 1
    for (int j = thread; j < a.rows * 16; j += kGemvThreads) {
      const int at = j % 16, row = j / 16;
      if (tile * kUnitRows + at >= part.p.n) continue;
      float sum = 0;
#pragma unroll 1
      for (int v = 0; v < a.top; ++v) {
        const int place = few.place_of[row * a.top + v];
        if (place >= 0) sum = round_bf16(sum + table[16 * place + at]);
      }
      out[row * part.p.n + tile * kUnitRows + at] = __float2bfloat16_rn(sum);
    }
  }
}

}  // namespace lowp::kernels::cuda
