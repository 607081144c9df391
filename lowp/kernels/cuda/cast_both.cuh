// Both orientations of a cast from one read of device memory. One-byte codes: a lane of the column cast holds two
// columns of 32 rows, and encodes both ways from its registers. 4-bit codes: the block casts its tile along rows and
// then along columns, and the second read of the tile comes from the first-level cache.
#pragma once

#include "lowp/kernels/cuda/cast_columns.cuh"

namespace lowp::kernels::cuda {

/// Codes of two neighbouring values, the first in the low byte.
template <Elem E>
__device__ __forceinline__ std::uint16_t encode2(float low, float high) {
  if constexpr (E == Elem::e4m3) return static_cast<std::uint16_t>(ptx::cvt_e4m3x2(low, high));
  if constexpr (E == Elem::e5m2) return static_cast<std::uint16_t>(ptx::cvt_e5m2x2(low, high));
  return static_cast<std::uint16_t>(encode_narrow<E>(low) | encode_narrow<E>(high) << 8);
}

/// Row-wise cast, with groups of 32 columns and one-byte codes, of what the 16 lanes of a half warp hold; `inside`:
/// whether they are columns of the matrix. Whole warps call it.
template <class Codec>
__device__ __forceinline__ void cast_rows_of_pair(const RowsArgs& args, std::uint32_t expert, std::uint32_t row,
                                                  std::uint32_t column, const ColumnPair<Codec::kInput>& pair,
                                                  bool inside) {
  constexpr Elem In = Codec::kInput;
  static_assert(Codec::kGroup == 32 && !Codec::kNibbles);
  // Largest magnitudes of rows: of two in a word (16-bit input), or of one.
  constexpr int kRowsAWord = In == Elem::f32 ? 1 : 2, kWords = kWarpRows / kRowsAWord;
  const int lane = threadIdx.x % 32, member = lane % 16;
  constexpr std::uint32_t kWarp = 0xFFFFFFFFu;
  std::uint32_t amax[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if constexpr (In == Elem::f32) {
      amax[i] = max_abs<In>(pair.word[i][0], pair.word[i][1]);
    } else {
      const std::uint32_t a = pair.word[2 * i][0], b = pair.word[2 * i + 1][0];
      amax[i] = max_abs<In>(detail::low_halves(a, b), detail::high_halves(a, b));
    }
  }
  // Each exchange halves the words that a lane looks after: in the end those of rows 2 * member and 2 * member + 1.
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const int lanes = 8 >> step, words = kWords / 2 >> step;
    const bool upper = lane & lanes;
#pragma unroll
    for (int i = 0; i < kWords / 2; ++i) {
      if (i >= words) continue;
      const std::uint32_t keep = upper ? amax[i + words] : amax[i], give = upper ? amax[i] : amax[i + words];
      amax[i] = max_abs<In>(keep, __shfl_xor_sync(kWarp, give, lanes));
    }
  }
  Chosen c[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    c[i] = Codec::choose(args.codec, magnitude_bits<In>(amax[i / kRowsAWord], i));
    if (inside) store_scale<Codec>(args, expert, (row + 2 * member + i) * args.groups_per_row + column / 32, c[i]);
  }
  auto* out = static_cast<std::uint8_t*>(args.codes) +
              (static_cast<std::size_t>(expert) * args.rows + row) * args.row_chunks * 8 + column;
  const std::size_t width = std::size_t{args.row_chunks} * 8;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r, out += width) {
    const float multiplier = __shfl_sync(kWarp, c[r % 2].multiplier(), r / 2, 16);
    float x[2];
    pair.values(r, x[0], x[1]);
    std::uint16_t codes = encode2<Codec::kElement>(x[0] * multiplier, x[1] * multiplier);
    if (is_narrow_float(Codec::kElement) && multiplier != multiplier)
      codes = static_cast<std::uint16_t>(kNanCodes<Codec::kElement>);
    ptx::store_if(inside, out, codes);
  }
}

/// Encodes the block's tile of kColumnWarps<Codec> * 32 rows and kColumns columns along rows: 8 lanes a row.
template <class Codec>
__device__ __forceinline__ void cast_row_tile(const RowsArgs& args, const CodecArgs& codec, std::uint32_t expert,
                                              std::uint32_t row0, std::uint32_t column0) {
  constexpr Elem In = Codec::kInput;
  constexpr int kRowLanes = kColumns / 8;
  constexpr int kStep = kColumnWarps<Codec> * 32 / kRowLanes;  // rows at a time
  const std::uint32_t column = column0 / 8 + threadIdx.x % kRowLanes, last_column = min(column, args.row_chunks - 1);
  const std::size_t base = static_cast<std::size_t>(expert) * args.chunks;
#pragma unroll 1  // as in cast_tiles
  for (int i = 0; i < kWarpRows * kColumnWarps<Codec> / kStep; i += kUnroll) {
    Chunk<In> chunk[kUnroll];
    const std::uint32_t first_row = row0 + i * kStep + threadIdx.x / kRowLanes;
    Places places = {base + first_row * args.row_chunks + column, kStep * args.row_chunks, {}};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      places.inside[u] = first_row + u * kStep < args.rows && column < args.row_chunks;
      chunk[u].load(args.x, base + min(first_row + u * kStep, args.rows - 1) * args.row_chunks + last_column);
    }
    for_tensor_scale<Codec>(codec, [&](auto used) {
      cast_chunks<decltype(used)>(args, codec, chunk, places, [&](std::uint32_t u, const Chosen& c) {
        const std::uint32_t row = first_row + u * kStep;
        if (row < args.rows && column < args.row_chunks)
          store_scale<Codec>(args, expert, row * args.groups_per_row + column / (Codec::kGroup / 8), c);
      });
    });
  }
}

/// Blocks that should fit a multiprocessor: encoding both ways from registers takes about 100 of them, more on some
/// architectures.
template <class Codec>
inline constexpr int kBothBlocks = Codec::kNibbles ? kColumnBlocks<Codec>
                                                   : (Codec::kInput == Elem::f32 ? 12 : 20) / kColumnWarps<Codec>;

/// grid: tiles along k, along m, experts.
template <class Codec>
__global__ void __launch_bounds__(kColumnWarps<Codec> * 32, kBothBlocks<Codec>)
    cast_both(const __grid_constant__ RowsArgs rows, const __grid_constant__ ColumnsArgs columns) {
  __shared__ LineTile tile;
  const std::uint32_t row0 = blockIdx.y * (kColumnWarps<Codec> * kWarpRows), column0 = blockIdx.x * kColumns;
  using Pair = ColumnPair<Codec::kInput>;
  if constexpr (Codec::kNibbles) {
    cast_row_tile<Codec>(rows, codec_of(rows.codec, rows.amax, blockIdx.z), blockIdx.z, row0, column0);
    cast_column_tile<Codec>(columns, tile, blockIdx.z, row0, column0,
                            [](const Pair&, std::uint32_t, std::uint32_t, bool) {});
  } else {
    cast_column_tile<Codec>(columns, tile, blockIdx.z, row0, column0,
                            [&](const Pair& pair, std::uint32_t row, std::uint32_t column, bool inside) {
                              cast_rows_of_pair<Codec>(rows, blockIdx.z, row, column, pair, inside);
                            });
  }
}

}  // namespace lowp::kernels::cuda
