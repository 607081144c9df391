// Launch shapes of the cast kernels.
#pragma once

#include <algorithm>

#include "lowp/kernels/cuda/cast_both.cuh"
#include "lowp/kernels/cuda/cast_row.cuh"
#include "lowp/kernels/cuda/cast_tiles.cuh"

namespace lowp::kernels::cuda {

/// Launches a kernel over flat chunks (cast_groups, cast_whole). Small matrices take small blocks, so that all
/// multiprocessors have some.
template <class Kernel>
void launch_flat(const Kernel& kernel, const RowsArgs& args, int experts, StreamHandle stream) {
  const std::uint32_t warps = ceil_div<std::uint32_t>(args.chunks, 32 * kUnroll);
  const std::uint32_t threads = warps * experts >= 8 * 264 ? 256 : warps * experts >= 4 * 264 ? 128 : 64;
  const dim3 grid(ceil_div<std::uint32_t>(args.chunks, threads * kUnroll), static_cast<unsigned>(experts));
  kernel<<<grid, threads, 0, stream>>>(args);
}

/// Launches cast_row with as many chunks a thread as the row needs; false if it is too long.
template <class Codec>
bool launch_row(const RowsArgs& args, int experts, StreamHandle stream) {
  constexpr std::uint32_t kMost = Codec::kInput == Elem::f32 ? 4 : 8;
  const unsigned grid = args.rows * static_cast<unsigned>(experts);
  const std::uint32_t chunks = args.row_chunks;
  const auto threads = [&](std::uint32_t each) { return round_up<std::uint32_t>(ceil_div(chunks, each), 32); };
  if (chunks <= 1024)
    cast_row<Codec, 4><<<grid, threads(4), 0, stream>>>(args);
  else if (chunks <= kMost * 512)
    cast_row<Codec, kMost><<<grid, threads(kMost), 0, stream>>>(args);
  else
    return false;
  return true;
}

/// Launches the row-wise kernel of a format with one-byte scales for the layout of its scales.
template <class Codec>
void launch_groups(const RowsArgs& args, int experts, StreamHandle stream) {
  if (args.whole_tiles) {
    const dim3 grid(ceil_div<std::uint32_t>(args.groups_per_row, formats::kTileCols * kBlockTiles<Codec>),
                    ceil_div<std::uint32_t>(args.rows, formats::kTileRows), static_cast<unsigned>(experts));
    cast_tiles<Codec><<<grid, 256, 0, stream>>>(args);
  } else {
    launch_flat(cast_groups<Codec>, args, experts, stream);
  }
}

template <class Codec>
dim3 tile_grid(std::uint32_t m, std::uint32_t k, int experts) {
  return {ceil_div<std::uint32_t>(k, kColumns), ceil_div<std::uint32_t>(m, kColumnWarps<Codec> * kWarpRows),
          static_cast<unsigned>(experts)};
}

}  // namespace lowp::kernels::cuda
