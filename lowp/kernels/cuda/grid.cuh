// Launch shapes of the cast kernels.
#pragma once

#include <algorithm>
#include <type_traits>

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
template <class Codec, class Source = Plain<Codec::kInput>>
bool launch_row(const RowsArgs& args, int experts, StreamHandle stream) {
  constexpr std::uint32_t kMost = Codec::kInput == Elem::f32 ? 4 : 8;
  const unsigned grid = args.rows * static_cast<unsigned>(experts);
  const std::uint32_t chunks = args.row_chunks;
  const auto threads = [&](std::uint32_t each) { return round_up<std::uint32_t>(ceil_div(chunks, each), 32); };
  if (chunks <= 1024)
    cast_row<Codec, 4, Source><<<grid, threads(4), 0, stream>>>(args);
  else if (chunks <= kMost * 512)
    cast_row<Codec, kMost, Source><<<grid, threads(kMost), 0, stream>>>(args);
  else
    return false;
  return true;
}

/// Launches the row-wise kernel of a format for the layout of its scales.
template <class Codec, class Source = Plain<Codec::kInput>>
void launch_groups(const RowsArgs& args, int experts, StreamHandle stream) {
  if constexpr (Codec::kByteScale) {
    if (args.whole_tiles) {
      const dim3 grid(ceil_div<std::uint32_t>(args.groups_per_row, formats::kTileCols * kBlockTiles<Codec>),
                      ceil_div<std::uint32_t>(args.rows, formats::kTileRows), static_cast<unsigned>(experts));
      cast_tiles<Codec, Source><<<grid, 256, 0, stream>>>(args);
      return;
    }
  }
  launch_flat(cast_groups<Codec, Source>, args, experts, stream);
}

/// Calls body(codec, whole_row), which returns whether it launched, with the codec of a format that can have a norm or
/// an activation in front: those of activations. `whole_row`: one scale a row. False if the format has none.
template <Elem In, class Body>
bool for_front_codec(const RowsArgs& args, const Body& body) {
  const BlockSpec& format = args.codec.format;
  constexpr std::false_type by_group;
  constexpr std::true_type by_row;
  if (format.group_rows != 1) return false;
  const bool row = format.group_cols == 0;
  switch (format.rule) {
    case Rule::mx:
      if (args.lanes != 4) return false;
      if (format.element == Elem::e4m3) return body(MxCodec<Elem::e4m3, In>(), by_group);
      return format.element == Elem::e2m1 && body(MxCodec<Elem::e2m1, In>(), by_group);
    case Rule::nvfp4:
      if (args.lanes != 2) return false;
      return format.tensor_scale ? body(Nvfp4Codec<Nvfp4::two_levels, In>(), by_group)
                                 : body(Nvfp4Codec<Nvfp4::one_level, In>(), by_group);
    case Rule::float8:
      if (format.element != Elem::e4m3) return false;
      if (row) return body(Float8Codec<In>(), by_row);
      return format.group_cols == 128 && args.lanes == 16 && body(Float8Codec<In>(), by_group);
    case Rule::symmetric:
      return row && !format.scale_in_input_dtype && body(IntegerCodec<Rule::symmetric, false, In>(), by_row);
    default:
      return false;
  }
}

}  // namespace lowp::kernels::cuda
