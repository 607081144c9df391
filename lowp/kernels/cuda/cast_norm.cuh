// RMSNorm in front of a cast: a block of norm_lanes(k) threads holds a row in registers, normalises and encodes it,
// while its next row is on its way where there is room for it. As many blocks as are resident at once share the rows.
#pragma once

#include <type_traits>

#include "lowp/kernels/cuda/cast_row.cuh"

namespace lowp::kernels::cuda {

/// The sum over the block's threads in the order of kernels/front.h.
__device__ __forceinline__ float sum_over_block(float mine) {
  __shared__ float parts[32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine += __shfl_xor_sync(0xFFFFFFFFu, mine, mask);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  float all = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) all += __shfl_xor_sync(0xFFFFFFFFu, all, mask);
  return all;
}

/// What a row is multiplied by, from each thread's sum of squares, added in the order of kernels/front.h.
__device__ __forceinline__ float scale_of_row(float squares, float values, float eps) {
  __shared__ float parts[32], scale;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(0xFFFFFFFFu, squares, mask);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
  __syncthreads();
  if (threadIdx.x < 32) {
    float all = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.0f;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) all += __shfl_xor_sync(0xFFFFFFFFu, all, mask);
    const float of_row = formats::divide(1.0f, __fsqrt_rn(formats::divide(all, values) + eps));
    if (threadIdx.x == 0) scale = of_row;
  }
  __syncthreads();
  return scale;
}

/// x * scale * weight, rounded once, or also between the two products.
template <bool kRoundQuotient, Elem In>
__device__ __forceinline__ Chunk<In> normalise(const Chunk<In>& x, const Chunk<In>& weight, float scale) {
  float v[8];
  x.values(v);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= scale;
  if constexpr (kRoundQuotient) return multiply(to_chunk<In>(v), weight);
  float w[8];
  weight.values(w);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= w[i];
  return to_chunk<In>(v);
}

/// Threads of the largest block, and blocks that should fit a multiprocessor.
template <int kChunks>
inline constexpr int kNormThreads = kChunks == 4 ? 256 : 512;
template <class Codec, int kChunks>
inline constexpr int kNormBlocks = kChunks == 8                 ? 1
                                   : Codec::kInput != Elem::f32 ? 3
                                   : Codec::kTwoLevels          ? 1
                                                                : 2;

/// args.front.other: weight [k]. One scale for a row, or one for each Codec::kGroup values.
template <class Codec, int kChunks, bool kWholeRow>
__global__ void __launch_bounds__(kNormThreads<kChunks>, kNormBlocks<Codec, kChunks>)
    cast_norm(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  constexpr bool kKeepsWeight = kChunks == 4 && In == Elem::bf16;  // in registers, from row to row
  const auto load_weight = [&](Chunk<In>& weight, int i) {
    const std::uint32_t at = i * blockDim.x + threadIdx.x;
    weight.load(args.front.other, at < args.row_chunks ? at : 0);
  };
  constexpr bool kLoadsAhead = kChunks == 4;  // the registers of a longer row hold one
  const bool full = args.row_chunks == kChunks * blockDim.x;
  const auto load_row = [&](Chunk<In>(&chunk)[kChunks], std::uint32_t row) {
    const std::size_t place = static_cast<std::size_t>(row) * args.row_chunks + threadIdx.x;
    if (kLoadsAhead && full) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) chunk[i].load(args.x, place + i * blockDim.x);
    } else {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        if (i * blockDim.x + threadIdx.x < args.row_chunks)
          chunk[i].load(args.x, place + i * blockDim.x);
        else
          chunk[i].clear();
      }
    }
  };
  Chunk<In> kept[kKeepsWeight ? kChunks : 1], next[kChunks];
  if constexpr (kKeepsWeight) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) load_weight(kept[i], i);
  }
  if constexpr (kLoadsAhead) load_row(next, blockIdx.x);
  const CodecArgs codec = codec_of(args.codec, args.amax, 0);
#pragma unroll 1
  for (std::uint32_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    Chunk<In> chunk[kChunks];
    if constexpr (kLoadsAhead) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) chunk[i] = next[i];
      if (row + gridDim.x < args.rows) load_row(next, row + gridDim.x);
    } else {
      load_row(chunk, row);
    }
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      float x[8];
      chunk[i].values(x);
#pragma unroll
      for (int j = 0; j < 8; ++j)  // squares of 16-bit values are exact, so that contraction changes nothing
        squares = In == Elem::f32 ? squares + x[j] * x[j] : __fmaf_rn(x[j], x[j], squares);
    }
    const float scale = scale_of_row(squares, static_cast<float>(args.row_chunks * 8), args.front.eps);
    const auto normalise_row = [&](auto rounds_quotient) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        Chunk<In> weight;
        if constexpr (kKeepsWeight)
          weight = kept[i];
        else
          load_weight(weight, i);
        chunk[i] = normalise<rounds_quotient()>(chunk[i], weight, scale);
      }
    };
    if (args.front.round_quotient)
      normalise_row(std::true_type());
    else
      normalise_row(std::false_type());
    if constexpr (kWholeRow) {
      encode_row<Codec>(args, row, chunk);
    } else {
      static_assert(kChunks % kUnroll == 0);
#pragma unroll
      for (int i = 0; i < kChunks; i += kUnroll) {
        Chunk<In> some[kUnroll];
        Places places = {
            static_cast<std::size_t>(row) * args.row_chunks + i * blockDim.x + threadIdx.x, blockDim.x, {}};
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          some[u] = chunk[i + u];
          places.inside[u] = (i + u) * blockDim.x + threadIdx.x < args.row_chunks;
        }
        for_tensor_scale<Codec>(codec, [&](auto used) {
          cast_chunks<decltype(used)>(args, codec, some, places, [&](std::uint32_t u, const Chosen& c) {
            const std::uint32_t own = (i + u) * blockDim.x + threadIdx.x;
            if (own < args.row_chunks)
              store_scale<Codec>(args, 0, (row * args.row_chunks + own) / (Codec::kGroup / 8), c);
          });
        });
      }
    }
  }
}

}  // namespace lowp::kernels::cuda
