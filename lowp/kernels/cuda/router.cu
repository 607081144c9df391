#include "lowp/kernels/cuda/add_norm.cuh"
#include "lowp/kernels/cuda/routing_launch.h"

namespace lowp::kernels::cuda {
namespace {

__device__ __forceinline__ float value_of(const void* x, std::int64_t i) {
  return bits_float(static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(x)[i]) << 16);
}

// Every block normalises its row, which is less than a kernel of its own; a row's first keeps it.
__global__ void __launch_bounds__(512) normalise_and_score(const __grid_constant__ RouterTask task) {
  ptx::launch_dependents();
  const std::int64_t width = task.norm.width, chunks = width / 8, row = blockIdx.x / task.experts,
                     expert = blockIdx.x - row * task.experts;
  Bf16x8 weight[kRowChunks], x[kRowChunks];
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    weight[i].clear();
    if (const int at = row_chunk(i); at < chunks)
      weight[i].load(task.weight, static_cast<std::size_t>(expert * chunks + at));
  }
  const float bias = task.bias ? value_of(task.bias, expert) : 0;
  normalised_row(task.norm, row, expert == 0, x);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    const int at = row_chunk(i);
    if (expert == 0 && at < chunks) store_eight(task.norm.out, row * width + at * 8, x[i]);
    float v[8], w[8];
    x[i].values(v);
    weight[i].values(w);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = __fmaf_rn(v[j], w[j], sum);
  }
  __syncthreads();  // the norm's sums have been read
  sum = sum_over_block(sum);
  if (threadIdx.x == 0)
    static_cast<std::uint16_t*>(task.scores)[blockIdx.x] =
        static_cast<std::uint16_t>(float_bits(round_bf16(sum + bias)) >> 16);
}

}  // namespace

void launch_router(const RouterTask& task, StreamHandle stream) {
  launch_early(normalise_and_score, task.norm.rows * task.experts, row_threads(task.norm.width), task, stream);
}

}  // namespace lowp::kernels::cuda
