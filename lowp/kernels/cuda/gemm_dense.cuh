// The kernel of gemm_dense.h: persistent, warp-specialised, both operands by the copy engine.
//
// Three warpgroups. One thread of the first keeps a ring of stages of 128 of K full; the other two multiply and write.
// Two blocks of a cluster share one operand: each loads half of it into both. A stage is released when the products of
// the next one are queued, so that the tensor cores always hold work. Output goes through two swizzled 64 x 64 tiles a
// warpgroup and the copy engine, which drops what lies beyond the matrix.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/gemm_dense.h"
#include "lowp/kernels/cuda/gemm_ptx.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"
#include "lowp/kernels/cuda/gemm_wgmma.cuh"

namespace lowp::kernels::cuda {

/// A tile of a block: Rows x Columns, each of the two multiplying warpgroups takes Rows / 2 rows. A cluster's blocks
/// share the tile of `a` and lie along n (ShareA), or share the tile of `b` and lie along m.
template <int Rows, int Columns, Sums Kind, int Cluster, bool ShareA>
struct DenseShape {
  static constexpr int kRows = Rows, kColumns = Columns, kCluster = Cluster, kDepth = 128;
  static constexpr Sums kSums = Kind;
  static constexpr bool kShareA = ShareA, kInteger = Kind == Sums::integer;
  static constexpr bool kPartialSums = Kind == Sums::promoted || Kind == Sums::scaled;
  static constexpr int kBands = Rows / 128;  // of 64 rows a warpgroup
  static constexpr int kABytes = Rows * kDepth, kBBytes = Columns * kDepth, kStageBytes = kABytes + kBBytes;
  static constexpr int kStages = 196608 / kStageBytes;
  static constexpr int kOutBytes = 64 * 128;  // a staged tile of 64 x 64 bf16
  static constexpr int kShared = kStages * kStageBytes + 4 * kOutBytes + 16 * kStages + 1024;
  // What a cluster covers.
  static constexpr int kClusterRows = ShareA ? Rows : Rows * Cluster;
  static constexpr int kClusterColumns = ShareA ? Columns * Cluster : Columns;
  using Sum = std::conditional_t<kInteger, std::int32_t, float>;
  using Wgmma = std::conditional_t<kInteger, ptx::WgmmaS8<Columns>, ptx::WgmmaE4m3<Columns>>;
  static_assert(Rows % 128 == 0 && (Kind != Sums::scaled || Columns == 128) && (!kPartialSums || kBands == 1));
};

/// The product without its matrices, which come as tensor maps.
struct DenseArgs {
  int m, n, k;
  const float *a_scale, *b_scale;
  int a_scale_step, b_scale_step;  // 1 or 0
  const __nv_bfloat16* bias;
  const std::int8_t* a_zero;
  const std::int32_t* b_sum;
  const std::int32_t* expert_of_block;  // or null: one matrix b
};

template <class Shape>
struct DenseKernel {
  using Sum = typename Shape::Sum;
  using Place = RingPlace<Shape::kStages>;
  static constexpr int kSums = Shape::kColumns / 2;  // of a thread, for 64 rows

  const CUtensorMap &map_a, &map_b, &map_y;
  const DenseArgs& args;
  std::uint32_t ring, out, barriers, rank;
  TileOrder order;
  int depth_blocks, clusters;

  __device__ std::uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ std::uint32_t empty(int stage) const { return barriers + 16 * stage + 8; }

  /// The first row and column of this block's tile.
  __device__ void corner(int index, int& row, int& column) const {
    int r, c;
    order.at(index, r, c);
    row = r * Shape::kClusterRows + (Shape::kShareA ? 0 : static_cast<int>(rank) * Shape::kRows);
    column = c * Shape::kClusterColumns + (Shape::kShareA ? static_cast<int>(rank) * Shape::kColumns : 0);
  }
  /// Whose rows a tile has, -1 if nobody's.
  __device__ int expert(int row) const { return args.expert_of_block ? __ldg(args.expert_of_block + row / 128) : 0; }

  // A tile that the cluster shares is loaded in parts, one a block, each into all blocks.
  template <bool Shared, int Size>
  __device__ void load(std::uint32_t to, const CUtensorMap* map, std::uint32_t barrier, int k, int first) const {
    if constexpr (Shared) {
      constexpr int kPart = Size / Shape::kCluster;
      const int offset = static_cast<int>(rank) * kPart;
      ptx::load_tile(to + offset * Shape::kDepth, map, barrier, k, first + offset, (1 << Shape::kCluster) - 1);
    } else {
      ptx::load_tile(to, map, barrier, k, first);
    }
  }

  __device__ void produce() const {
    constexpr bool kClustered = Shape::kCluster > 1;
    Place place;
    for (int tile = static_cast<int>(blockIdx.x) / Shape::kCluster; tile < order.count(); tile += clusters) {
      int row, column;
      corner(tile, row, column);
      const int group = expert(row);
      if (group < 0) continue;
      const int first_b = group * args.n + column;
      for (int block = 0; block < depth_blocks; ++block) {
        ptx::barrier_wait(empty(place.stage), place.parity ^ 1);
        ptx::barrier_expect(full(place.stage), Shape::kStageBytes);
        const std::uint32_t a = ring + place.stage * Shape::kStageBytes, b = a + Shape::kABytes;
        load<kClustered && Shape::kShareA, Shape::kRows>(a, &map_a, full(place.stage), block * Shape::kDepth, row);
        load<kClustered && !Shape::kShareA, Shape::kColumns>(b, &map_b, full(place.stage), block * Shape::kDepth,
                                                             first_b);
        place.advance();
      }
    }
  }

  __device__ __forceinline__ void release(int stage) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    if (lane >= Shape::kCluster) return;
    if constexpr (Shape::kCluster > 1)
      ptx::barrier_arrive(empty(stage), lane);
    else
      ptx::barrier_arrive(empty(stage));
  }

  // Queues the products of a stage.
  template <int Bands>
  __device__ __forceinline__ void issue(Sum (&sums)[Bands][kSums], int stage, int first_row, bool keep) const {
    const std::uint32_t a = ring + stage * Shape::kStageBytes;
    const std::uint64_t rows = ptx::tile_descriptor(a + first_row * Shape::kDepth),
                        columns = ptx::tile_descriptor(a + Shape::kABytes);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < Bands; ++i)
#pragma unroll
      for (int step = 0; step < 4; ++step)
        Shape::Wgmma::run(sums[i], rows + i * (64 * Shape::kDepth / 16) + step * 2, columns + step * 2, keep || step);
    ptx::wgmma_commit();
  }

  // All of K in the tensor cores' accumulators.
  __device__ __forceinline__ void multiply(Sum (&sums)[Shape::kBands][kSums], Place& place, int first_row) const {
    int last = 0;
    for (int block = 0; block < depth_blocks; ++block) {
      ptx::barrier_wait(full(place.stage), place.parity);
      issue(sums, place.stage, first_row, block > 0);
      ptx::wgmma_wait<1>();
      if (block) release(last);
      last = place.stage;
      place.advance();
    }
    ptx::wgmma_wait<0>();
    release(last);
  }

  // The scales of 128 of K: of rows g and g + 8 of a warp's 16, times that of the tile's columns.
  struct BlockScales {
    const float *row0, *row1, *columns;
    __device__ __forceinline__ float2 at(int block) const {
      const float c = __ldg(columns + block);
      return {__ldg(row0 + block) * c, __ldg(row1 + block) * c};
    }
  };
  __device__ BlockScales block_scales(int row, int column, int group) const {
    const int warp_row = row + (static_cast<int>(threadIdx.x) / 32 & 3) * 16 + (static_cast<int>(threadIdx.x) & 31) / 4;
    const auto of_row = [&](int r) { return args.a_scale + static_cast<long>(min(r, args.m - 1)) * depth_blocks; };
    const int b_block = group * ceil_div(args.n, 128) + column / 128;
    return {of_row(warp_row), of_row(warp_row + 8), args.b_scale + static_cast<long>(b_block) * depth_blocks};
  }

  // Every 128 of K added to f32 sums. Two partial sums: one runs while the other is added. The loop's body is a
  // straight line of two blocks, because ptxas serialises every wgmma once the pipeline passes a branch (C7514).
  __device__ __forceinline__ void multiply_in_parts(float (&sums)[1][kSums], Place& place, int first_row,
                                                    const BlockScales& scales) const {
    float even[1][kSums], odd[1][kSums];
#pragma unroll
    for (float& v : sums[0]) v = 0;
    float2 scale{1, 1};
    const auto add = [&](const float(&part)[1][kSums], int next) {
      if constexpr (Shape::kSums == Sums::scaled) {
        const float2 now = scale;
        scale = scales.at(min(next, depth_blocks - 1));
#pragma unroll
        for (int j = 0; j < kSums; ++j) sums[0][j] = __fmaf_rn(part[0][j], j & 2 ? now.y : now.x, sums[0][j]);
      } else {
#pragma unroll
        for (int j = 0; j < kSums; ++j) sums[0][j] += part[0][j];
      }
    };
    if constexpr (Shape::kSums == Sums::scaled) scale = scales.at(0);
    const auto begin = [&](float(&part)[1][kSums]) {
      ptx::barrier_wait(full(place.stage), place.parity);
      issue(part, place.stage, first_row, false);
    };
    begin(even);
    int last = place.stage;
    place.advance();
    const auto finish = [&](const float(&part)[1][kSums], int next) {
      ptx::wgmma_wait<1>();
      release(last);
      add(part, next);
      last = place.stage;
      place.advance();
    };
    int block = 1;
    for (; block + 1 < depth_blocks; block += 2) {
      begin(odd);
      finish(even, block);
      begin(even);
      finish(odd, block + 1);
    }
    if (block < depth_blocks) {
      begin(odd);
      finish(even, block);
      ptx::wgmma_wait<0>();
      add(odd, block);
    } else {
      ptx::wgmma_wait<0>();
      add(even, block);
    }
    release(last);
  }

  struct Columns {
    float2 scale[8];
  };
  __device__ __forceinline__ void load_columns(Columns& to, int column, int group) const {
    if constexpr (Shape::kSums == Sums::scaled) return;
    const int pair = (static_cast<int>(threadIdx.x) & 3) * 2;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int c = min(column + j * 8 + pair, args.n - 2);
      to.scale[j] = args.b_scale_step ? __ldg(reinterpret_cast<const float2*>(args.b_scale + group * args.n + c))
                                      : float2{__ldg(args.b_scale + group), __ldg(args.b_scale + group)};
    }
  }

  // Two neighbouring values of a row: scaled, bias added, rounded.
  __device__ __forceinline__ std::uint32_t finish(Sum v0, Sum v1, float row_scale, const float2& scale, int row,
                                                  int column, int group) const {
    float x, y;
    if constexpr (Shape::kInteger) {
      if (args.a_zero) {
        const std::int32_t zero = __ldg(args.a_zero + row);
        v0 -= zero * __ldg(args.b_sum + group * args.n + column);
        v1 -= zero * __ldg(args.b_sum + group * args.n + column + 1);
      }
      x = __int2float_rn(v0);
      y = __int2float_rn(v1);
    } else {
      x = v0;
      y = v1;
    }
    if constexpr (Shape::kSums != Sums::scaled) {
      x = x * scale.x * row_scale;
      y = y * scale.y * row_scale;
    }
    if (args.bias) {
      x += __bfloat162float(args.bias[column]);
      y += __bfloat162float(args.bias[column + 1]);
    }
    return ptx::pack_bf16(x, y);
  }

  __device__ __forceinline__ void write(const Sum (&sums)[Shape::kBands][kSums], int consumer, int row, int column,
                                        int group) const {
    const int thread = static_cast<int>(threadIdx.x) & 127, warp = thread / 32, lane = thread & 31, g = lane / 4;
    const int out_row = warp * 16 + (lane & 15), half = lane / 16, pair = (lane & 3) * 2;
    constexpr int kBlocks = Shape::kColumns / 64;
    constexpr bool kAhead = !Shape::kInteger;  // zero points take the registers of loading scales a block ahead
    Columns now, next;
    if constexpr (kAhead) load_columns(next, column, group);
#pragma unroll
    for (int band = 0; band < Shape::kBands; ++band) {
      const int r0 = min(row + band * 64 + warp * 16 + g, args.m - 1), r1 = min(r0 + 8, args.m - 1);
      float s0 = 1, s1 = 1;
      if constexpr (Shape::kSums != Sums::scaled) {
        s0 = __ldg(args.a_scale + r0 * args.a_scale_step);
        s1 = __ldg(args.a_scale + r1 * args.a_scale_step);
      }
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        const std::uint32_t staged = out + (consumer * 2 + (block & 1)) * Shape::kOutBytes;
        if constexpr (kAhead) {
          now = next;
          load_columns(next, column + (block + 1) % kBlocks * 64, group);
        } else {
          load_columns(now, column + block * 64, group);
        }
        if (thread == 0) ptx::store_wait_read<1>();
        ptx::sync_threads(1 + consumer, 128);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const Sum* d = &sums[band][block * 32 + j * 8];
          const int c = min(column + block * 64 + j * 16 + pair, args.n - 2), c8 = min(c + 8, args.n - 2);
          const float2 &x = now.scale[2 * j], &y = now.scale[2 * j + 1];
          ptx::store_matrices(staged + out_row * 128 + (((2 * j + half) ^ (out_row & 7)) << 4),
                              finish(d[0], d[1], s0, x, r0, c, group), finish(d[2], d[3], s1, x, r1, c, group),
                              finish(d[4], d[5], s0, y, r0, c8, group), finish(d[6], d[7], s1, y, r1, c8, group));
        }
        ptx::fence_async();
        ptx::sync_threads(1 + consumer, 128);
        if (thread == 0) {
          ptx::store_tile(&map_y, staged, column + block * 64, row + band * 64);
          ptx::store_commit();
        }
      }
    }
  }

  __device__ void consume(int consumer) const {
    Place place;
    const int first_row = consumer * Shape::kBands * 64;
    for (int tile = static_cast<int>(blockIdx.x) / Shape::kCluster; tile < order.count(); tile += clusters) {
      int row, column;
      corner(tile, row, column);
      const int group = expert(row);
      if (group < 0) continue;
      Sum sums[Shape::kBands][kSums];
      if constexpr (Shape::kSums == Sums::scaled)
        multiply_in_parts(sums, place, first_row, block_scales(row + first_row, column, group));
      else if constexpr (Shape::kPartialSums)
        multiply_in_parts(sums, place, first_row, {});
      else
        multiply(sums, place, first_row);
      write(sums, consumer, row + first_row, column, group);
    }
    if ((threadIdx.x & 127) == 0) ptx::store_wait<0>();
  }
};

template <class Shape>
__global__ void __launch_bounds__(384, 1)
    gemm_dense(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
               const __grid_constant__ CUtensorMap map_y, const __grid_constant__ DenseArgs args) {
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t ring = (ptx::shared_address(shared) + 1023) & ~1023u,
                      out = ring + Shape::kStages * Shape::kStageBytes;
  const TileOrder order{ceil_div(args.m, Shape::kClusterRows), ceil_div(args.n, Shape::kClusterColumns),
                        2048 / Shape::kClusterRows};
  const DenseKernel<Shape> kernel{map_a,
                                  map_b,
                                  map_y,
                                  args,
                                  ring,
                                  out,
                                  out + 4 * Shape::kOutBytes,
                                  Shape::kCluster > 1 ? ptx::cluster_rank() : 0,
                                  order,
                                  ceil_div(args.k, Shape::kDepth),
                                  static_cast<int>(gridDim.x) / Shape::kCluster};
  if (threadIdx.x == 0) {
    for (int s = 0; s < Shape::kStages; ++s) {
      ptx::barrier_init(kernel.full(s), 1);
      ptx::barrier_init(kernel.empty(s), 8 * Shape::kCluster);  // the multiplying warps of the cluster
    }
    ptx::barrier_init_fence();
    ptx::prefetch_map(&map_a);
    ptx::prefetch_map(&map_b);
    ptx::prefetch_map(&map_y);
  }
  if constexpr (Shape::kCluster > 1)
    ptx::cluster_sync();
  else
    __syncthreads();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, as descriptors must be
  if (warpgroup == 0) {
    ptx::registers_down<40>();
    if (threadIdx.x == 0) kernel.produce();
  } else {
    ptx::registers_up<232>();
    kernel.consume(warpgroup - 1);
  }
  // Nobody leaves while a neighbour may still signal or write into its shared memory.
  if constexpr (Shape::kCluster > 1) ptx::cluster_sync();
}

}  // namespace lowp::kernels::cuda
