// RMSNorm in front of a cast: a block of norm_lanes(k) threads holds a row in registers, normalises and encodes it.
#pragma once

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

template <Elem In>
__device__ __forceinline__ Chunk<In> normalise(const Chunk<In>& x, const Chunk<In>& weight, float scale,
                                               bool round_quotient) {
  float v[8];
  x.values(v);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= scale;
  if (round_quotient) return multiply(to_chunk<In>(v), weight);
  float w[8];
  weight.values(w);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= w[i];
  return to_chunk<In>(v);
}

/// One block a row; args.front.other: weight [k]. One scale for the row, or one for each Codec::kGroup values.
template <class Codec, int kChunks, bool kWholeRow>
__global__ void __launch_bounds__(512, Codec::kInput == Elem::f32 || kChunks == 8 ? 1 : 2)
    cast_norm(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  const std::uint32_t row = blockIdx.x;
  const std::size_t base = static_cast<std::size_t>(row) * args.row_chunks;
  Chunk<In> chunk[kChunks];
  std::uint32_t index[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    index[i] = i * blockDim.x + threadIdx.x;
    if (index[i] < args.row_chunks)
      chunk[i].load(args.x, base + index[i]);
    else
      chunk[i].clear();
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
  const float mean = formats::divide(sum_over_block(squares), static_cast<float>(args.row_chunks * 8));
  const float scale = formats::divide(1.0f, __fsqrt_rn(mean + args.front.eps));
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    Chunk<In> weight;
    weight.load(args.front.other, index[i] < args.row_chunks ? index[i] : 0);
    chunk[i] = normalise(chunk[i], weight, scale, args.front.round_quotient);
  }
  if constexpr (kWholeRow) {
    encode_row<Codec>(args, row, chunk);
  } else {
    // Beyond the row: an index that no expert has.
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      index[i] = index[i] < args.row_chunks ? row * args.row_chunks + index[i] : 0xFFFFFFFFu;
    static_assert(kChunks % kUnroll == 0);
#pragma unroll
    for (int i = 0; i < kChunks; i += kUnroll) {
      Chunk<In> some[kUnroll];
      std::uint32_t at[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) some[u] = chunk[i + u], at[u] = index[i + u];
      const CodecArgs codec = codec_of(args.codec, args.amax, 0);
      for_tensor_scale<Codec>(codec, [&](auto used) {
        cast_chunks<decltype(used)>(args, codec, 0, some, at, [&](std::uint32_t u, const Chosen& c) {
          const std::uint32_t own = (i + u) * blockDim.x + threadIdx.x;
          if (own < args.row_chunks)
            store_scale<Codec>(args, 0, (row * args.row_chunks + own) / (Codec::kGroup / 8), c);
        });
      });
    }
  }
}

}  // namespace lowp::kernels::cuda
