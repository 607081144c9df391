#include "lowp/kernels/cuda/experts.h"
#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/routing_launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// A block for each place.
__global__ void __launch_bounds__(kThreads) gather_rows_to_places(const __grid_constant__ GatherPlaces task) {
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const std::int64_t place = blockIdx.x, row = task.place_row[place];
  if (row < 0) return;
  const GatherPlaces::Array& v = task.values;
  const std::int64_t chunks = v.bytes / 16;
  for (std::int64_t i = threadIdx.x; i < chunks; i += kThreads)
    static_cast<uint4*>(v.to)[place * chunks + i] = static_cast<const uint4*>(v.from)[row * chunks + i];
  for (const GatherPlaces::Array& a : task.scales) {
    if (!a.from) continue;
    for (std::int64_t i = threadIdx.x; i < a.bytes; i += kThreads)
      static_cast<std::uint8_t*>(a.to)[place * a.bytes + i] =
          static_cast<const std::uint8_t*>(a.from)[row * a.bytes + i];
  }
}

struct ShareArgs {
  const std::int32_t *first, *size;
  MatrixAmax* amax;
};

// A block for each expert.
__global__ void __launch_bounds__(kThreads) share_largest(const __grid_constant__ ShareArgs args) {
  __shared__ std::uint32_t largest;
  ptx::launch_dependents();
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  ptx::wait_for_predecessor();
  MatrixAmax* const own = args.amax + args.first[blockIdx.x];
  const int size = args.size[blockIdx.x];
  std::uint32_t bits = 0;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) bits = max(bits, own[i].bits);
  bits = __reduce_max_sync(~0u, bits);
  if (threadIdx.x % 32 == 0) atomicMax(&largest, bits);
  __syncthreads();
  const float scale = formats::nvfp4_tensor_scale(bits_float(largest));
  const MatrixAmax all{largest, 0, scale, formats::divide(1.0f, scale)};
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) own[i] = all;
}

__global__ void __launch_bounds__(kThreads) add_weighted(const __grid_constant__ CombineTask task) {
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chunks = task.width / 8;
  if (index >= task.rows * chunks) return;
  const std::int64_t row = index / chunks, at = index % chunks;
  float sum[8] = {};
  for (std::int64_t i = 0; i < task.top; ++i) {
    const std::int64_t visit = task.visits[row * task.top + i];
    if (visit < 0) continue;
    const float weight = task.weights[row * task.top + i];
    float value[8];
    load_written(task.outputs, (visit * chunks + at) * 8).values(value);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum[j] = round_bf16(sum[j] + round_bf16(value[j] * weight));
  }
  store_eight(task.out, index * 8, to_chunk<Elem::bf16>(sum));
}

}  // namespace

void launch_gather_places(const GatherPlaces& task, StreamHandle stream) {
  launch_early(gather_rows_to_places, task.places, kThreads, task, stream);
}

void share_amax(const RoutedRows& rows, MatrixAmax* amax, StreamHandle stream) {
  launch_early(share_largest, rows.experts, kThreads, ShareArgs{rows.expert_first, rows.expert_size, amax}, stream);
}

void launch_combine(const CombineTask& task, StreamHandle stream) {
  launch_early(add_weighted, ceil_div<std::int64_t>(task.rows * task.width / 8, kThreads), kThreads, task, stream);
}

}  // namespace lowp::kernels::cuda
