// Both orientations of a cast from one read of device memory: a block casts a tile along rows and then along columns;
// the second read of the tile comes from the first-level cache.
#pragma once

#include "lowp/kernels/cuda/cast_columns.cuh"

namespace lowp::kernels::cuda {

/// Encodes the block's tile of kColumnWarps<Codec> * 32 rows and kColumns columns along rows: 8 lanes a row.
template <class Codec>
__device__ __forceinline__ void cast_row_tile(const RowsArgs& args, const CodecArgs& codec, std::uint32_t expert,
                                              std::uint32_t row0, std::uint32_t column0) {
  constexpr Elem In = Codec::kInput;
  constexpr int kRowLanes = kColumns / 8;
  constexpr int kStep = kColumnWarps<Codec> * 32 / kRowLanes;  // rows at a time
  const std::uint32_t column = column0 / 8 + threadIdx.x % kRowLanes;
#pragma unroll
  for (int i = 0; i < kWarpRows * kColumnWarps<Codec> / kStep; i += kUnroll) {
    Chunk<In> chunk[kUnroll];
    std::uint32_t index[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::uint32_t row = row0 + (i + u) * kStep + threadIdx.x / kRowLanes;
      const bool inside = row < args.rows && column < args.row_chunks;
      index[u] = inside ? row * args.row_chunks + column : 0xFFFFFFFFu;
      if (inside)
        chunk[u].load(args.x, static_cast<std::size_t>(expert) * args.chunks + index[u]);
      else
        chunk[u].clear();
    }
    for_tensor_scale<Codec>(codec, [&](auto used) {
      cast_chunks<decltype(used)>(args, codec, expert, chunk, index, [&](std::uint32_t u, const Chosen& c) {
        const std::uint32_t row = row0 + (i + u) * kStep + threadIdx.x / kRowLanes;
        if (row < args.rows && column < args.row_chunks)
          store_scale<Codec>(args, expert, row * args.groups_per_row + column / (Codec::kGroup / 8), c);
      });
    });
  }
}

/// grid: tiles along k, along m, experts.
template <class Codec>
__global__ void __launch_bounds__(kColumnWarps<Codec> * 32, kColumnBlocks<Codec>)
    cast_both(const __grid_constant__ RowsArgs rows, const __grid_constant__ ColumnsArgs columns) {
  __shared__ LineTile tile;
  const std::uint32_t row0 = blockIdx.y * (kColumnWarps<Codec> * kWarpRows), column0 = blockIdx.x * kColumns;
  cast_row_tile<Codec>(rows, codec_of(rows.codec, rows.amax, blockIdx.z), blockIdx.z, row0, column0);
  cast_column_tile<Codec>(columns, tile, blockIdx.z, row0, column0);
}

}  // namespace lowp::kernels::cuda
