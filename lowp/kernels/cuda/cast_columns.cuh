// Casts along columns: groups run down m, the result is K-major ([k, m] for each expert), in one pass.
//
// A warp owns 64 columns of 32 rows, a lane two neighbouring columns: each row is one 128-byte line for the warp
// (bf16), the largest magnitudes of both columns fall out of packed maxima without any exchange, and a lane ends with
// whole runs of output. Through shared memory (16-byte units, swizzled so that neither side meets a bank conflict) the
// warps of a block join their runs to full 128-byte lines of the output.
#pragma once

#include "lowp/kernels/cuda/cast_groups.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kColumns = 64, kWarpRows = 32, kLineBytes = 128;

/// Warps of a block: as many as fill a line of each output row.
template <class Codec>
inline constexpr int kColumnWarps = kLineBytes / (kWarpRows * (Codec::kNibbles ? 1 : 2) / 2);

/// Blocks that should fit a multiprocessor: 80 registers a thread, 128 for f32, whose values alone take 64, and where
/// random bits are drawn.
template <class Codec>
inline constexpr int kColumnBlocks = (Codec::kInput == Elem::f32 || Codec::kByChance ? 16 : 24) / kColumnWarps<Codec>;

/// Two neighbouring values of 32 rows.
template <Elem In>
struct ColumnPair {
  static constexpr int kWords = In == Elem::f32 ? 2 : 1;
  std::uint32_t word[kWarpRows][kWords];

  /// `first`: the place of the first pair in x, `stride`: from row to row, both in values and even.
  __device__ __forceinline__ void load(const void* x, std::size_t first, std::size_t stride) {
    constexpr std::size_t kBytes = kWords * 2;  // of a value
    const auto* from = static_cast<const unsigned char*>(x) + first * kBytes;
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r, from += stride * kBytes) {
      if constexpr (kWords == 1) {
        word[r][0] = __ldg(reinterpret_cast<const std::uint32_t*>(from));
      } else {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
        word[r][0] = v.x;
        word[r][1] = v.y;
      }
    }
  }
  /// f32 bits of the largest magnitude of each column in rows [begin, begin + count).
  template <int count>
  __device__ __forceinline__ void amax(int begin, std::uint32_t (&bits)[2]) const {
    if constexpr (kWords == 1) {
      std::uint32_t m = word[begin][0];
#pragma unroll
      for (int r = 1; r < count; ++r) m = max_abs<In>(m, word[begin + r][0]);
      bits[0] = magnitude_bits<In>(m, 0);
      bits[1] = magnitude_bits<In>(m, 1);
    } else {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        bits[c] = 0;
#pragma unroll
        for (int r = 0; r < count; ++r) bits[c] = max_abs<In>(bits[c], word[begin + r][c]);
      }
    }
  }
  __device__ __forceinline__ void values(int r, float& low, float& high) const {
    if constexpr (kWords == 1) {
      unpack_pair<In>(word[r][0], low, high);
    } else {
      low = bits_float(word[r][0]);
      high = bits_float(word[r][1]);
    }
  }
};

/// hadamard16 of each 16 rows of both columns, rounded to the input's dtype.
template <Elem In>
__device__ __forceinline__ void rotate(ColumnPair<In>& pair) {
#pragma unroll
  for (int first = 0; first < kWarpRows; first += kHadamardRun) {
    float v[2][kHadamardRun];
#pragma unroll
    for (int r = 0; r < kHadamardRun; ++r) pair.values(first + r, v[0][r], v[1][r]);
    hadamard16(v[0]);
    hadamard16(v[1]);
#pragma unroll
    for (int r = 0; r < kHadamardRun; ++r) {
      if constexpr (In == Elem::f32) {
        pair.word[first + r][0] = float_bits(v[0][r]);
        pair.word[first + r][1] = float_bits(v[1][r]);
      } else {
        pair.word[first + r][0] = pack_pair<In>(v[0][r], v[1][r]);
      }
    }
  }
}

/// The part of an output tile in shared memory: kColumns lines of 8 units of 16 bytes.
struct LineTile {
  uint4 unit[kColumns][8];
  __device__ __forceinline__ uint4& at(int column, int u) { return unit[column][u ^ (column / 2 % 8)]; }
};

/// Encodes the block's tile at (row0, column0) of an expert into args.codes and args.scale. The block has
/// kColumnWarps<Codec> warps, all of which call it. `before(pair, row, column, inside)`: called by whole warps with the
/// values of a lane before they are encoded; those of a lane beyond the last column are another's.
template <class Codec, class Before>
__device__ __forceinline__ void cast_column_tile(const ColumnsArgs& args, LineTile& tile, std::uint32_t expert,
                                                 std::uint32_t row0, std::uint32_t column0, const Before& before) {
  constexpr int kWarps = kColumnWarps<Codec>, kGroup = Codec::kGroup, kGroups = kWarpRows / kGroup;
  constexpr int kUnits = Codec::kNibbles ? 1 : 2;  // of a lane's column
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::uint32_t row = row0 + warp * kWarpRows, column = column0 + lane * 2;
  const std::size_t matrix = static_cast<std::size_t>(args.m) * args.k;
  const bool inside = column < args.k;

  if (row < args.m) {
    ColumnPair<Codec::kInput> pair;
    pair.load(args.x, expert * matrix + static_cast<std::size_t>(row) * args.k + (inside ? column : args.k - 2),
              args.k);
    const CodecArgs codec = codec_of(args.codec, args.amax, expert);  // after the loads are on their way
    if constexpr (Codec::kRotates) {
      if (args.hadamard) rotate(pair);
    }
    before(pair, row, column, inside);
    std::uint32_t code[2][kUnits * 4];
    for_tensor_scale<Codec>(codec, [&](auto used) {
      using Used = decltype(used);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        std::uint32_t amax[2];
        pair.template amax<kGroup>(g * kGroup, amax);
        Chosen c[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) c[i] = Used::choose(codec, amax[i]);
        const std::uint32_t block = row / kGroup + g, blocks = args.m / kGroup;
        if (!inside) {
          // no scales of its own
        } else if (args.place.layout == formats::ScaleLayout::rows) {
          const std::size_t at = (static_cast<std::size_t>(expert) * blocks + block) * args.k + column;
          *reinterpret_cast<std::uint16_t*>(args.scale + at) =
              static_cast<std::uint16_t>(c[0].stored | c[1].stored << 8);
        } else {
#pragma unroll
          for (int i = 0; i < 2; ++i)
            args.scale[scale_offset(args.place, expert, column + i, block)] = static_cast<std::uint8_t>(c[i].stored);
        }
#pragma unroll
        for (int part = 0; part < kGroup / 8; ++part) {
          const int first = g * kGroup + part * 8, at = first / 8;
          if constexpr (Codec::kPairs) {
            std::uint32_t eight[8], out[2];
#pragma unroll
            for (int i = 0; i < 8; ++i) eight[i] = pair.word[first + i][0];
            Used::encode_column_pairs(c, eight, out);
            code[0][at] = out[0];
            code[1][at] = out[1];
          } else {
            Eight v[2];
#pragma unroll
            for (int i = 0; i < 8; ++i) pair.values(first + i, v[0].x[i], v[1].x[i]);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
              for (int j = 0; j < 4; ++j)
                v[i].sign[j] = detail::high_halves(float_bits(v[i].x[2 * j]), float_bits(v[i].x[2 * j + 1]));
              v[i].element = (static_cast<std::uint64_t>(expert) * args.k + column + i) * args.m + row + first;
              const std::uint64_t eight = Used::encode(codec, c[i], v[i]);
              if constexpr (Codec::kNibbles) {
                code[i][at] = static_cast<std::uint32_t>(eight);
              } else {
                code[i][2 * at] = static_cast<std::uint32_t>(eight);
                code[i][2 * at + 1] = static_cast<std::uint32_t>(eight >> 32);
              }
            }
          }
        }
      }
    });
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int u = 0; u < kUnits; ++u)
        tile.at(2 * lane + i, warp * kUnits + u) =
            make_uint4(code[i][4 * u], code[i][4 * u + 1], code[i][4 * u + 2], code[i][4 * u + 3]);
  }
  __syncthreads();
  const std::uint32_t row_bytes = Codec::kNibbles ? args.m / 2 : args.m, first_byte = Codec::kNibbles ? row0 / 2 : row0;
  auto* out = static_cast<std::uint8_t*>(args.codes) + static_cast<std::size_t>(expert) * args.k * row_bytes;
#pragma unroll
  for (int i = 0; i < kColumns * 8 / (kWarps * 32); ++i) {
    const int unit = i * kWarps * 32 + threadIdx.x, line = unit / 8, u = unit % 8;
    if (column0 + line < args.k && first_byte + 16 * u < row_bytes)
      *reinterpret_cast<uint4*>(out + static_cast<std::size_t>(column0 + line) * row_bytes + first_byte + 16 * u) =
          tile.at(line, u);
  }
}

/// grid: tiles along k, along m, experts.
template <class Codec>
__global__ void __launch_bounds__(kColumnWarps<Codec> * 32, kColumnBlocks<Codec>)
    cast_columns(const __grid_constant__ ColumnsArgs args) {
  __shared__ LineTile tile;
  cast_column_tile<Codec>(args, tile, blockIdx.z, blockIdx.y * (kColumnWarps<Codec> * kWarpRows), blockIdx.x * kColumns,
                          [](const ColumnPair<Codec::kInput>&, std::uint32_t, std::uint32_t, bool) {});
}

template <class Codec>
dim3 tile_grid(std::uint32_t m, std::uint32_t k, int experts) {
  return {ceil_div<std::uint32_t>(k, kColumns), ceil_div<std::uint32_t>(m, kColumnWarps<Codec> * kWarpRows),
          static_cast<unsigned>(experts)};
}

}  // namespace lowp::kernels::cuda
