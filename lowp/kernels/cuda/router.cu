#include "lowp/kernels/cuda/add_norm.cuh"
#include "lowp/kernels/cuda/routing.cuh"
#include "lowp/kernels/cuda/routing_launch.h"

namespace lowp::kernels::cuda {
namespace {

struct RouterArgs {
  AddNormTask norm;
  const std::uint16_t* weight;
  const std::uint16_t* bias;
  std::uint16_t* scores;
  std::uint32_t* ended;
  RouteArgs route;
};

__device__ __forceinline__ float value_of(std::uint16_t x) { return bits_float(static_cast<std::uint32_t>(x) << 16); }

// Every block normalises the rows, which is less than a kernel of its own; the first one keeps them.
template <int kEach>
__global__ void __launch_bounds__(512) normalise_and_route(const __grid_constant__ RouterArgs args) {
  __shared__ std::uint32_t masks[kMostExperts];
  __shared__ bool last;
  ptx::launch_dependents();
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = thread / 32;
  const std::int64_t rows = args.norm.rows, width = args.norm.width, chunks = width / 8, experts = gridDim.x;
  Bf16x8 weight[kRowChunks];
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    weight[i].clear();
    if (const int at = row_chunk(i); at < chunks) weight[i].load(args.weight, blockIdx.x * chunks + at);
  }
  const float bias = args.bias ? value_of(args.bias[blockIdx.x]) : 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    Bf16x8 row[kRowChunks];
    normalised_row(args.norm, r, blockIdx.x == 0, row);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kRowChunks; ++i) {
      const int at = row_chunk(i);
      if (blockIdx.x == 0 && at < chunks) store_eight(args.norm.out, r * width + at * 8, row[i]);
      float x[8], w[8];
      row[i].values(x);
      weight[i].values(w);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum = __fmaf_rn(x[j], w[j], sum);
    }
    __syncthreads();  // the norm's sums have been read
    sum = sum_over_block(sum);
    if (thread == 0) args.scores[r * experts + blockIdx.x] = static_cast<std::uint16_t>(float_bits(round_bf16(sum + bias)) >> 16);
    __syncthreads();
  }
  if (thread == 0) {
    __threadfence();
    last = atomicAdd(args.ended, 1) + 1 == gridDim.x;
  }
  for (int e = thread; e < experts; e += threads) masks[e] = 0;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (thread == 0) *args.ended = 0;
  for (std::int64_t r = warp; r < rows; r += threads / 32) choose_experts<kEach>(args.route.task, r, masks);
  __syncthreads();
  place_visits(args.route, masks);
}

}  // namespace

void launch_router(const RouterTask& task, StreamHandle stream) {
  const RoutedRows& to = task.route.to;
  RouterArgs args{.norm = task.norm,
                  .weight = static_cast<const std::uint16_t*>(task.weight),
                  .bias = static_cast<const std::uint16_t*>(task.bias),
                  .scores = static_cast<std::uint16_t*>(task.scores),
                  .ended = task.ended,
                  .route = {task.route, 1, nullptr, nullptr}};
  args.route.task.scores = task.scores;
  launch_early(to.experts <= 128 ? normalise_and_route<4> : normalise_and_route<kMostExperts / 32>, to.experts,
               row_threads(task.norm.width), args, stream);
}

}  // namespace lowp::kernels::cuda
