// Casts with one scale for each row: a block of threads holds a row in registers, so that it is read once.
#pragma once

#include "lowp/kernels/cuda/cast_groups.cuh"

namespace lowp::kernels::cuda {

/// The block's value of `mine` combined over all threads. Every thread of the block calls it.
template <Elem In>
__device__ __forceinline__ std::uint32_t combine_over_block(std::uint32_t mine) {
  __shared__ std::uint32_t parts[32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine = combine_across<In>(mine, mask);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  std::uint32_t all = parts[threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) all = combine_across<In>(all, mask);
  return all;
}
__device__ __forceinline__ formats::GroupStats combine_over_block(formats::GroupStats mine) {
  __shared__ float low[32], high[32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine = combine_across(mine, mask);
  if (threadIdx.x % 32 == 0) {
    low[threadIdx.x / 32] = mine.min;
    high[threadIdx.x / 32] = mine.max;
  }
  __syncthreads();
  const std::uint32_t part = threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0;
  formats::GroupStats all;
  all.min = low[part];
  all.max = high[part];
  all.empty = false;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) all = combine_across(all, mask);
  return all;
}

/// One block a row of up to blockDim.x * kChunks chunks; blockDim.x is a multiple of 32, at most 512.
template <class Codec, int kChunks>
__global__ void __launch_bounds__(512, Codec::kMinMax ? 1 : 2) cast_row(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  const std::size_t base = static_cast<std::size_t>(blockIdx.x) * args.row_chunks;
  Chunk<In> chunk[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const std::uint32_t at = i * blockDim.x + threadIdx.x;
    // Beyond the row its first chunk again, which changes no statistics.
    chunk[i].load(args.x, base + (at < args.row_chunks ? at : 0));
  }
  Chosen c;
  if constexpr (Codec::kMinMax) {
    formats::GroupStats stats = chunk[0].stats();
#pragma unroll
    for (int i = 1; i < kChunks; ++i) stats.merge(chunk[i].stats());
    c = Codec::choose(args.codec, combine_over_block(stats));
  } else {
    std::uint32_t amax = chunk[0].max_abs_packed();
#pragma unroll
    for (int i = 1; i < kChunks; ++i) amax = max_abs<In>(amax, chunk[i].max_abs_packed());
    c = Codec::choose(args.codec, amax_bits<In>(combine_over_block<In>(amax)));
  }
  if (threadIdx.x == 0) {
    if constexpr (Codec::kMinMax) store_zero_point(args, blockIdx.x, c.zero_point);
    static_cast<std::uint32_t*>(args.scale)[blockIdx.x] = c.stored;
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const std::uint32_t at = i * blockDim.x + threadIdx.x;
    const std::uint64_t eight = encode_chunk<Codec>(args.codec, c, chunk[i]);
    if (at < args.row_chunks) store_codes<Codec>(args.codes, base + at, eight);
  }
}

/// One block of 256 threads a square of 128 x 128; the last rows of an expert may be missing. grid: squares along k,
/// along m, experts.
template <class Codec>
__global__ void __launch_bounds__(256) cast_square(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  constexpr int kChunks = 8;  // 16 lanes a row, 16 rows at a time
  const std::uint32_t row = blockIdx.y * 128 + threadIdx.x / 16, column = blockIdx.x * 16 + threadIdx.x % 16;
  const std::size_t base = static_cast<std::size_t>(blockIdx.z) * args.chunks;
  Chunk<In> chunk[kChunks];
  std::uint32_t amax = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    if (row + 16 * i < args.rows)
      chunk[i].load(args.x, base + static_cast<std::size_t>(row + 16 * i) * args.row_chunks + column);
    else
      chunk[i].clear();
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) amax = max_abs<In>(amax, chunk[i].max_abs_packed());
  const Chosen c = Codec::choose(args.codec, amax_bits<In>(combine_over_block<In>(amax)));
  if (threadIdx.x == 0) {
    const std::size_t at = (static_cast<std::size_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    static_cast<std::uint32_t*>(args.scale)[at] = c.stored;
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const std::uint64_t eight = encode_chunk<Codec>(args.codec, c, chunk[i]);
    if (row + 16 * i < args.rows)
      store_codes<Codec>(args.codes, base + static_cast<std::size_t>(row + 16 * i) * args.row_chunks + column, eight);
  }
}

}  // namespace lowp::kernels::cuda
