// Up to 8 rows of activations times a packed weight: the time is that of reading the weight once.
//
// A block for each multiprocessor, whatever the shape: a smaller grid would crowd the next kernel's blocks where there
// is room. Every warp owns a ring of units in shared memory that its first lane keeps full by bulk copies; it begins
// before the kernel's predecessor has ended, since weights do not depend on it. Warps form teams; a team takes one tile
// of 16 outputs at a time, its warps taking turns along K. Partial sums wait in four buffers guarded by barriers and
// are added two tiles later in the order of the warps, so that nothing synchronizes the block.
//
// What stands between products goes into their beginnings and ends: the residual sum and the norm (gemv_input.cuh), the
// cast of activations, the gate.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemm_decode.cuh"
#include "lowp/kernels/cuda/gemv_input.cuh"

namespace lowp::kernels::cuda {

struct GemvArgs {
  const std::uint8_t* units;
  GemvInput input;
  const float* x_scale;  // or null; of row i at i * x_scale_step
  int x_scale_step;
  const float* row_scale;
  const __nv_bfloat16* bias;  // or null
  Gate gate;
  __nv_bfloat16* y;
  int m, n, k;
  int units_along_k, tiles;
  int stages;  // of a warp's ring
  int team;    // warps
};

inline constexpr int kGemvMostStages = 4;
inline constexpr int kGemvSums = 4;  // tiles whose partial sums may wait
inline constexpr int kGemvLag = 2;  // a tile is added two tiles after its last unit: all its warps have arrived by then

template <Codes C, Scales S>
struct Unit {
  uint4 codes[kChunks];
  uint2 scales[kChunks];

  __device__ __forceinline__ void load(std::uint32_t from, int lane) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      codes[c] = ptx::load_shared_16(from + c * kChunkBytes + 16 * lane);
      scales[c] = Decoder<C, S>::load_scales(from, c, lane);
    }
  }

  /// sums += unit times x, which points at this lane's first values for the unit.
  __device__ __forceinline__ void multiply(const std::uint32_t* x, float (&sums)[4]) const {
    constexpr int kSteps = Decoder<C, S>::kSteps;
    uint4 b{};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t a[kSteps][4];
      Decoder<C, S>::fragments(codes[c], scales[c], a);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int at = c * kSteps + step;
        if (at % 2 == 0) b = *reinterpret_cast<const uint4*>(x + at / 2 * 16);
        if (at % 2 == 0)
          ptx::mma_bf16(sums, a[step], b.x, b.y);
        else
          ptx::mma_bf16(sums, a[step], b.z, b.w);
      }
    }
  }
};

/// Blocks whose registers should fit a multiprocessor: nibbles with a bf16 scale for 32 need more than 64 a thread.
template <Codes C, Scales S>
inline constexpr int kGemvBlocks = C == Codes::u4&& S == Scales::bf16_32 ? 1 : 2;

template <Codes C, Scales S, int Columns>  // 1 row of x, or up to 8
__global__ void __launch_bounds__(kGemvThreads, (kGemvBlocks<C, S>)) gemv(const __grid_constant__ GemvArgs a) {
  constexpr int kBytes = unit_bytes(C, S), kDepth = unit_depth(C), kSlots = kGemvWarps;  // at most that many teams
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ __align__(8) std::uint64_t ring_barriers[kGemvWarps][kGemvMostStages], full_barriers[kSlots][kGemvSums],
      empty_barriers[kSlots][kGemvSums];
  __shared__ float partial[kGemvWarps][kGemvSums][16 * Columns];
  __shared__ typename GemvRows<Columns>::Shared of_rows;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4,
            t = lane % 4;
  const int member = warp % a.team, group = warp / a.team, teams_here = kGemvWarps / a.team;
  const int team = static_cast<int>(blockIdx.x) * teams_here + group, teams = static_cast<int>(gridDim.x) * teams_here;
  const auto share = [&](int i) { return static_cast<int>(static_cast<long>(a.tiles) * i / teams); };
  const int first = share(team), last = share(team + 1);
  const int padded_k = a.units_along_k * kDepth;
  const std::uint32_t ring = ptx::shared_address(shared) + static_cast<std::uint32_t>(warp * a.stages * kBytes),
                      ready = ptx::shared_address(ring_barriers[warp]),
                      full = ptx::shared_address(full_barriers[group]),
                      empty = ptx::shared_address(empty_barriers[group]);
  auto* x = reinterpret_cast<std::uint32_t*>(shared + kGemvWarps * a.stages * kBytes);

  ptx::launch_dependents();
  const int begin = first * a.units_along_k, end = last * a.units_along_k;
  const auto fetch = [&](int unit, int stage) {
    ptx::barrier_expect(ready + 8 * stage, kBytes);
    ptx::load_bytes(ring + stage * kBytes, a.units + static_cast<long>(unit) * kBytes, kBytes, ready + 8 * stage);
  };
  if (lane == 0) {
    for (int s = 0; s < a.stages; ++s) ptx::barrier_init(ready + 8 * s, 1);
    ptx::barrier_init_fence();
    for (int s = 0; s < a.stages; ++s)
      if (begin + member + s * a.team < end) fetch(begin + member + s * a.team, s);
    if (member == 0)
      for (int s = 0; s < kGemvSums; ++s) {
        ptx::barrier_init(full + 8 * s, a.team);
        ptx::barrier_init(empty + 8 * s, 1);
      }
  }
  GemvRows<Columns> rows(a.input, a.m, a.k, padded_k, x, of_rows);
  ptx::wait_for_predecessor();
  rows.stage();
  // Columns beyond m read row 0; nothing is written for them.
  const std::uint32_t* mine =
      x + 4 * t + (Columns == 1 ? 0 : (g < a.m ? g : 0) * (gemv_row_stride(padded_k, Columns) / 2));

  const auto add_up = [&](int tile) {  // the tile-th of this team
    const int buffer = tile % kGemvSums;
    ptx::barrier_wait(full + 8 * buffer, tile / kGemvSums & 1);
    const auto output = [&](int in_tile, int column) {
      float sum = 0;
      for (int w = 0; w < a.team; ++w) sum += partial[group * a.team + w][buffer][column * 16 + in_tile];
      const int row = (first + tile) * kUnitRows + in_tile;
      sum *= a.row_scale[row];
      if (a.input.cast != RowCast::none)
        sum *= of_rows.scale[column];
      else if (a.x_scale)
        sum *= a.x_scale[column * a.x_scale_step];
      if (a.bias) sum += __bfloat162float(a.bias[row]);
      return sum;
    };
    const int log_height = a.gate == Gate::none ? 4 : 3, height = 1 << log_height,  // of a tile of outputs
        outputs = a.n >> (4 - log_height);
    for (int i = lane; i < height * Columns; i += 32) {
      const int in_tile = i & (height - 1), column = i >> log_height, row = (first + tile) * height + in_tile;
      if (row >= outputs || column >= a.m) continue;
      const float value = output(in_tile, column);
      a.y[static_cast<long>(column) * outputs + row] =
          __float2bfloat16_rn(a.gate == Gate::none ? value : gated(a.gate, value, output(in_tile + height, column)));
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + 8 * buffer);
  };

  int unit = begin + member, stage = 0, tile = 0;
  std::uint32_t parity = 0;
  for (; first + tile < last; ++tile) {
    const int stop = (first + tile + 1) * a.units_along_k;
    float sums[4] = {};
    for (; unit < stop; unit += a.team) {
      ptx::barrier_wait(ready + 8 * stage, parity);
      Unit<C, S> u;
      u.load(ring + stage * kBytes, lane);
      __syncwarp();
      if (lane == 0 && unit + a.stages * a.team < end) fetch(unit + a.stages * a.team, stage);
      if (++stage == a.stages) {
        stage = 0;
        parity ^= 1;
      }
      u.multiply(mine + (unit - (first + tile) * a.units_along_k) * (kDepth / 2), sums);
    }
    const int buffer = tile % kGemvSums;
    if (tile >= kGemvSums) ptx::barrier_wait(empty + 8 * buffer, (tile / kGemvSums - 1) & 1);
    float* out = partial[warp][buffer];
    if constexpr (Columns == 1) {
      if (t == 0) {
        out[g] = sums[0];
        out[g + 8] = sums[2];
      }
    } else {
      out[2 * t * 16 + g] = sums[0];
      out[(2 * t + 1) * 16 + g] = sums[1];
      out[2 * t * 16 + g + 8] = sums[2];
      out[(2 * t + 1) * 16 + g + 8] = sums[3];
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(full + 8 * buffer);
    if (tile >= kGemvLag && (tile - kGemvLag) % a.team == member) add_up(tile - kGemvLag);
  }
  for (int i = max(0, tile - kGemvLag); i < tile; ++i)
    if (i % a.team == member) add_up(i);
}

}  // namespace lowp::kernels::cuda
