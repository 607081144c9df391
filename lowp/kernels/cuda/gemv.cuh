// Up to 8 rows of activations times a packed weight: the time is that of reading the weight once. Products of one row
// that follow each other are one launch, whose blocks hand each other what they made (gemv_mail.cuh).
//
// A block for each multiprocessor, whatever the shape: a smaller grid would crowd the next kernel's blocks where there
// is room. Weights come through a ring of rounds (gemv_ring.cuh) that begins before the kernel's predecessor has ended
// and does not stop between products, since weights do not depend on activations. Warps form teams; a team takes one
// tile of 16 outputs at a time, its warps taking turns along K. Partial sums wait in four buffers guarded by barriers
// and are added two tiles later in the order of the warps, so that nothing synchronizes the block.
//
// What stands between products goes into their beginnings and ends: the residual sum and the norm (gemv_input.cuh), the
// cast of activations, the gate.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemm_packed_product.h"
#include "lowp/kernels/cuda/gemv_operand.cuh"
#include "lowp/kernels/cuda/gemv_ring.cuh"

namespace lowp::kernels::cuda {

struct GemvProduct {
  GemvUnits weight;
  GemvInput input;
  const float* x_scale;  // or null; of row i at i * x_scale_step
  int x_scale_step;
  const float* row_scale;
  const __nv_bfloat16* bias;  // or null
  Gate gate;
  __nv_bfloat16* y;  // or null, where another product of the launch writes there later
  int y_mail;        // word of the mail, or negative
  int n, k;
};

struct GemvArgs {
  GemvProduct product[kMostChained];
  int count;
  int m;
  int rounds;        // of the ring
  int in_flight;     // of these, on their way at a time
  ProductMail mail;  // of several products
};

inline constexpr int kGemvSums = 4;  // tiles whose partial sums may wait
inline constexpr int kGemvLag = 2;  // a tile is added two tiles after its last unit: all its warps have arrived by then
inline constexpr int kGemvMostTeams = 4;
inline constexpr int kGemvBlockThreads = kGemvThreads + 32;

template <Codes C, Scales S, int Columns>
struct GemvShared {
  using Rows = GemvRows<Columns, GemvOperand<C, S>>;
  typename GemvRing<unit_bytes(C, S)>::Barriers ring;
  std::uint64_t full[kGemvMostTeams][kGemvSums], empty[kGemvMostTeams][kGemvSums];  // buffers of partial sums
  float partial[kGemvWarps][kGemvSums][16 * Columns];
  typename Rows::Shared of_rows;
};

/// The scale of an output of a tile, for the lane of that output. A warp asks for those of the next tile that it adds
/// when it adds one: memory is slow to answer while weights are on their way.
__device__ __forceinline__ float scale_of_lane(const GemvProduct& a, int tile) {
  return __ldg(a.row_scale + tile * kUnitRows + static_cast<int>(threadIdx.x) % kUnitRows);
}

/// The first tile that the warp adds, or another of the product.
__device__ __forceinline__ int first_tile(const GemvProduct& a) {
  const int warp = static_cast<int>(threadIdx.x) / 32, team = warp >> a.weight.log_team;
  const GemvShare share(a.weight);
  return min(share.tile(team) + (warp & (a.weight.team() - 1)), max(share.tile(team + 1) - 1, 0));
}

/// A product, once its rows are staged. Leaves the place behind all rounds of the block.
template <Codes C, Scales S, int Columns>
__device__ __forceinline__ void multiply_tiles(const GemvProduct& a, int m, const GemvMail& mail,
                                               const std::uint32_t* x, float next_scale,
                                               const GemvRing<unit_bytes(C, S)>& ring, GemvPlace& place,
                                               GemvShared<C, S, Columns>& shared) {
  constexpr int kDepth = unit_depth(C);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4,
            t = lane % 4;
  const int along_k = a.weight.along_k, size = a.weight.team(), member = warp & (size - 1),
            group = warp >> a.weight.log_team;
  const GemvShare share(a.weight);
  const int first = share.tile(group), tiles = share.tile(group + 1) - first;
  const std::uint32_t full = ptx::shared_address(shared.full[group]), empty = ptx::shared_address(shared.empty[group]);
  int rounds = share.rounds();
  // Columns beyond m read row 0; nothing is written for them.
  const std::uint32_t* mine =
      x + 4 * t + (Columns == 1 ? 0 : (g < m ? g : 0) * (gemv_row_stride(along_k * kDepth, Columns) / 2));

  const auto add_up = [&](int tile) {  // the tile-th of this team
    const int buffer = tile % kGemvSums;
    const float scale = next_scale;
    next_scale = scale_of_lane(a, first + min(tile + size, tiles - 1));
    ptx::barrier_wait(full + 8 * buffer, tile / kGemvSums & 1);
    const auto output = [&](int in_tile, int column) {
      float sum = 0;
      for (int w = 0; w < size; w += 4) {
        float part[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) part[i] = shared.partial[group * size + w + i][buffer][column * 16 + in_tile];
#pragma unroll
        for (const float p : part) sum += p;
      }
      sum *= GemvOperand<C, S>::kBack;
      sum *= __shfl_sync(~0u, scale, in_tile);
      if (a.input.cast != RowCast::none)
        sum *= shared.of_rows.scale[column];
      else if (a.x_scale)
        sum *= a.x_scale[column * a.x_scale_step];
      if (const int row = (first + tile) * kUnitRows + in_tile; a.bias && row < a.n)
        sum += __bfloat162float(a.bias[row]);
      return sum;
    };
    const int log_height = a.gate == Gate::none ? 4 : 3, height = 1 << log_height,  // of a tile of outputs
        outputs = a.n >> (4 - log_height);
#pragma unroll
    for (int begin = 0; begin < 16 * Columns; begin += 32) {
      const int i = begin + lane, in_tile = i & (height - 1), column = min(i >> log_height, m - 1),
                row = (first + tile) * height + in_tile;
      float value = output(in_tile, column);
      if (a.gate != Gate::none) value = gated(a.gate, value, output(in_tile + height, column));
      const bool inside = i >> log_height < m && row < outputs;
      if (Columns == 1 && a.y_mail >= 0) {
        const float next = __shfl_down_sync(~0u, value, 1);
        if (inside && lane % 2 == 0) ptx::store_relaxed(mail.at(a.y_mail) + row / 2, ptx::cvt_bf16x2(value, next));
      }
      if (inside && a.y) a.y[static_cast<long>(column) * outputs + row] = __float2bfloat16_rn(value);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + 8 * buffer);
  };

  int unit = member;  // of the team's
  for (int tile = 0; tile < tiles + kGemvLag; ++tile) {
    if (const int done = tile - kGemvLag; done >= 0 && (done & (size - 1)) == member) add_up(done);
    if (tile >= tiles) continue;
    const int begin = tile * along_k, stop = begin + along_k;
    float sums[4] = {};
    for (; unit < stop; unit += size, --rounds) {
      GemvUnit<C, S> u;
      u.load(ring.wait(place, warp), lane);
      __syncwarp();
      ring.release(place, lane);
      u.template multiply<Columns == 1>(mine + (unit - begin) * (kDepth / 2), sums);
    }
    const int buffer = tile % kGemvSums;
    if (tile >= kGemvSums) ptx::barrier_wait(empty + 8 * buffer, (tile / kGemvSums - 1) & 1);
    float* out = shared.partial[warp][buffer];
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
  }
  for (; rounds > 0; --rounds) {  // of other teams, or of other warps
    ring.wait(place, warp);
    __syncwarp();
    ring.release(place, lane);
  }
}

template <Codes C, Scales S, int Columns>  // 1 row of x, or up to 8
__global__ void __launch_bounds__(kGemvBlockThreads, 1) gemv(const __grid_constant__ GemvArgs args) {
  constexpr int kBytes = unit_bytes(C, S);
  extern __shared__ __align__(128) std::uint8_t dynamic[];
  __shared__ __align__(8) GemvShared<C, S, Columns> shared;
  // Where a product's arguments are near when it begins: the constant cache would fetch them line by line.
  __shared__ __align__(16) std::uint32_t copied[sizeof(GemvArgs) / 4];
  const auto& a = *reinterpret_cast<const GemvArgs*>(copied);
  for (unsigned i = threadIdx.x; i < sizeof(GemvArgs) / 4; i += kGemvBlockThreads)
    copied[i] = reinterpret_cast<const std::uint32_t*>(&args)[i];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const GemvRing<kBytes> ring(ptx::shared_address(dynamic), shared.ring, args.rounds);
  auto* x = reinterpret_cast<std::uint32_t*>(dynamic + args.rounds * kGemvWarps * kBytes);
  ptx::launch_dependents();
  if (thread == kGemvThreads) ring.init();
  __syncthreads();
  if (warp == kGemvWarps) return ring.fill(a.product, a.count, a.in_flight);

  GemvPlace place;
  int turn = 0;
  for (int p = 0; p < a.count; ++p) {
    const GemvProduct& product = a.product[p];
    GemvShared<C, S, Columns>::Rows::fetch(product.input, product.k);
    const float first_scale = scale_of_lane(product, first_tile(product));
    static_assert(kGemvMostTeams * kGemvSums == kGemvWarps);
    if (thread % 32 == 0) {  // one for each warp: lanes would take turns
      const std::uint32_t full = ptx::shared_address(&shared.full[0][0] + warp),
                          empty = ptx::shared_address(&shared.empty[0][0] + warp);
      if (p > 0) {
        ptx::barrier_end(full);
        ptx::barrier_end(empty);
      }
      ptx::barrier_init(full, static_cast<std::uint32_t>(product.weight.team()));
      ptx::barrier_init(empty, 1);
    }
    if (p == 0) {
      ptx::wait_for_predecessor();
      if (a.count > 1) turn = GemvMail::turn(a.mail);
    }
    const GemvMail mail(a.mail, turn);
    typename GemvShared<C, S, Columns>::Rows(product.input, a.m, product.k, product.weight.along_k * unit_depth(C), x,
                                             shared.of_rows, &mail)
        .stage();
    if (p == 0 && a.count > 1) mail.empty_other(thread, kGemvThreads);
    multiply_tiles(product, a.m, mail, x, first_scale, ring, place, shared);
    if (p + 1 == a.count) break;
    sync_gemv();
  }
  if (a.count > 1 && thread == 0) GemvMail::end(a.mail);
}

}  // namespace lowp::kernels::cuda
