// Casts along rows with scales in 128 x 4 tiles: a block takes the 128 rows and 4 groups of a tile (of several, until a
// row's codes fill lines), gathers the tiles' 512 scale bytes in shared memory and writes them in one piece, padding
// included. (A kernel that scatters single bytes into the tiles pays a transaction of 32 bytes for each four of them.)
#pragma once

#include "lowp/kernels/cuda/cast_groups.cuh"

namespace lowp::kernels::cuda {

/// Neighbouring tiles of a block: a row of them is 128 bytes of codes, or two such lines of 4-bit codes.
template <class Codec>
inline constexpr int kBlockTiles = (Codec::kNibbles ? 512 : 128) / (4 * Codec::kGroup);

/// 256 threads. grid: kBlockTiles along k, tiles along m, experts; each expert is tiled by itself.
template <class Codec, class Source>
__global__ void __launch_bounds__(256, kGroupBlocks<Codec, Source>) cast_tiles(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  constexpr int kLanes = Codec::kGroup / 8, kRowLanes = kBlockTiles<Codec> * 4 * kLanes, kStep = 256 / kRowLanes;
  constexpr int kTileUnits = formats::kTileBytes / 16, kUnits = kBlockTiles<Codec> * kTileUnits;
  __shared__ uint4 tile[kUnits];
  if (threadIdx.x < kUnits) tile[threadIdx.x] = make_uint4(0, 0, 0, 0);
  const std::uint32_t expert = blockIdx.z, lane_in_row = threadIdx.x % kRowLanes;
  const std::uint32_t column = blockIdx.x * kRowLanes + lane_in_row, first_row = threadIdx.x / kRowLanes;
  const std::uint32_t last_column = min(column, args.row_chunks - 1);
  const std::size_t base = static_cast<std::size_t>(expert) * args.chunks;
  __syncthreads();
  // Beyond the matrix its last row or chunk again: loads on conditions are not all sent before the first is waited for.
  Source source[kUnroll];
  const auto load = [&](int i) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::uint32_t row = min(blockIdx.y * 128 + (i + u) * kStep + first_row, args.rows - 1);
      source[u].load(args, base + row * args.row_chunks + last_column);
    }
  };
  constexpr bool kLoadsAhead = In != Elem::f32 && !Source::kHeavy;  // while there are registers for it
  if constexpr (kLoadsAhead) load(0);
  const CodecArgs codec = codec_of(args.codec, args.amax, expert);
#pragma unroll 1  // a loop, or the code of both kinds of tensor scale fills the instruction cache
  for (int i = 0; i < 128 / kStep; i += kUnroll) {
    if constexpr (!kLoadsAhead) load(i);
    Chunk<In> chunk[kUnroll];
    const std::uint32_t row = blockIdx.y * 128 + i * kStep + first_row;
    Places places = {base + row * args.row_chunks + column, kStep * args.row_chunks, {}};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      places.inside[u] = row + u * kStep < args.rows && column < args.row_chunks;
      chunk[u] = source[u].values(args);
    }
    if (kLoadsAhead && i + kUnroll < 128 / kStep) load(i + kUnroll);
    for_tensor_scale<Codec>(codec, [&](auto used) {
      cast_chunks<decltype(used)>(args, codec, chunk, places, [&](std::uint32_t u, const Chosen& c) {
        const std::uint32_t r = (i + u) * kStep + first_row, group = lane_in_row / kLanes;
        if (blockIdx.y * 128 + r < args.rows && column < args.row_chunks)
          reinterpret_cast<std::uint8_t*>(
              tile)[formats::tiled_offset<std::uint32_t>(r, group, 4 * kBlockTiles<Codec>)] =
              static_cast<std::uint8_t>(c.stored);
      });
    });
  }
  __syncthreads();
  const std::uint32_t tiles = ceil_div<std::uint32_t>(args.groups_per_row, formats::kTileCols);
  const std::uint32_t first_tile = blockIdx.x * kBlockTiles<Codec>;
  if (threadIdx.x < kUnits && first_tile + threadIdx.x / kTileUnits < tiles) {
    const std::size_t at = (static_cast<std::size_t>(expert) * gridDim.y + blockIdx.y) * tiles + first_tile;
    static_cast<uint4*>(args.scale)[at * kTileUnits + threadIdx.x] = tile[threadIdx.x];
  }
}

}  // namespace lowp::kernels::cuda
