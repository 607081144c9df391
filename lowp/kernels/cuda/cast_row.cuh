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

/// Calls finish(all) in the block's first warp alone with the value of `mine` combined over all threads; they all wait
/// for it. What is worked out from a whole row takes tens of instructions, so that it is not done in every warp.
template <Elem In, class Finish>
__device__ __forceinline__ void for_combined(std::uint32_t mine, const Finish& finish) {
  __shared__ std::uint32_t parts[32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine = combine_across<In>(mine, mask);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x < 32) {
    std::uint32_t all = parts[threadIdx.x < blockDim.x / 32 ? threadIdx.x : 0];
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) all = combine_across<In>(all, mask);
    finish(all);
  }
  __syncthreads();
}
template <Elem In, class Finish>
__device__ __forceinline__ void for_combined(Range<In> mine, const Finish& finish) {
  __shared__ std::uint32_t low[32], high[32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine.add_across(mask);
  if (threadIdx.x % 32 == 0) {
    low[threadIdx.x / 32] = mine.low;
    high[threadIdx.x / 32] = mine.high;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const std::uint32_t part = threadIdx.x < blockDim.x / 32 ? threadIdx.x : 0;
    Range<In> all = {low[part], high[part]};
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) all.add_across(mask);
    finish(all);
  }
  __syncthreads();
}

/// Encodes the row `row` of a block that holds it: chunk i of a thread is chunk i * blockDim.x + threadIdx.x of the
/// row; those beyond the row hold values of the row.
template <class Codec, int kChunks>
__device__ __forceinline__ void encode_row(const RowsArgs& args, std::uint32_t row,
                                           const Chunk<Codec::kInput> (&chunk)[kChunks]) {
  constexpr Elem In = Codec::kInput;
  __shared__ float shared[4];
  const auto choose = [&](const auto& found) {
    const Chosen c = Codec::choose(args.codec, found);
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int i = 0; i < Codec::kShared; ++i) shared[i] = c.shared[i];
    if constexpr (Codec::kMinMax) store_zero_point(args, row, c.zero_point);
    static_cast<std::uint32_t*>(args.scale)[row] = c.stored;
  };
  if constexpr (Codec::kMinMax) {
    Range<In> range = chunk[0].range();
#pragma unroll
    for (int i = 1; i < kChunks; ++i) range.add(chunk[i].range());
    for_combined(range, choose);
  } else {
    std::uint32_t amax = chunk[0].max_abs_packed();
#pragma unroll
    for (int i = 1; i < kChunks; ++i) amax = max_abs<In>(amax, chunk[i].max_abs_packed());
    for_combined<In>(amax, [&](std::uint32_t all) { choose(amax_bits<In>(all)); });
  }
  Chosen c;
#pragma unroll
  for (int i = 0; i < Codec::kShared; ++i) c.shared[i] = shared[i];
  const std::size_t place = static_cast<std::size_t>(row) * args.row_chunks + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const std::uint64_t eight = encode_chunk<Codec>(args.codec, c, chunk[i], place + i * blockDim.x);
    if (i * blockDim.x + threadIdx.x < args.row_chunks) store_codes<Codec>(args.codes, place + i * blockDim.x, eight);
  }
}

/// Threads of the largest block for a row of kChunks chunks a thread.
template <class Codec, int kChunks>
inline constexpr int kRowThreads = kChunks == 4 && Codec::kInput != Elem::f32 ? 256 : 512;

/// Blocks of so many threads that should fit a multiprocessor: 64 registers a thread hold a row of 16-bit values, but
/// for the longest of those whose scale or quotient takes more.
template <class Codec, int kChunks, class Source>
inline constexpr int kRowBlocks = (Codec::kMinMax || Source::kHeavy ||
                                           (kChunks == 8 && (Codec::kInput == Elem::f16 || Codec::kGroup == 0))
                                       ? 512
                                       : 1024) /
                                  kRowThreads<Codec, kChunks>;

/// One block a row of up to blockDim.x * kChunks chunks; blockDim.x is a multiple of 32.
template <class Codec, int kChunks, class Source>
__global__ void __launch_bounds__(kRowThreads<Codec, kChunks>, kRowBlocks<Codec, kChunks, Source>)
    cast_row(const __grid_constant__ RowsArgs args) {
  const std::size_t base = static_cast<std::size_t>(blockIdx.x) * args.row_chunks;
  Source source[kChunks];
  Chunk<Codec::kInput> chunk[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const std::uint32_t at = i * blockDim.x + threadIdx.x;
    // Beyond the row its first chunk again, which changes no statistics.
    source[i].load(args, base + (at < args.row_chunks ? at : 0));
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) chunk[i] = source[i].values(args);
  encode_row<Codec>(args, blockIdx.x, chunk);
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
    const std::size_t at = base + static_cast<std::size_t>(row + 16 * i) * args.row_chunks + column;
    const std::uint64_t eight = encode_chunk<Codec>(args.codec, c, chunk[i], at);
    if (row + 16 * i < args.rows) store_codes<Codec>(args.codes, at, eight);
  }
}

}  // namespace lowp::kernels::cuda
