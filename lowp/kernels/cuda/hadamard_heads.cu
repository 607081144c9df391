#include <cmath>

#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/hadamard.cuh"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/layers_launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Args {
  void* x;
  std::int64_t eights;  // of values, of all heads
  int lanes;            // that hold a head
  float factor;
};

__global__ void __launch_bounds__(kThreads) hadamard(const __grid_constant__ Args args) {
  ptx::launch_dependents();
  const std::int64_t own = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  ptx::wait_for_predecessor();
  const bool present = own < args.eights;  // the others stay for the shuffles
  float v[8] = {};
  if (present) load_written(args.x, 8 * own).values(v);
  hadamard_butterflies(v, static_cast<int>(own % args.lanes), args.lanes);
#pragma unroll
  for (float& value : v) value *= args.factor;
  if (present) store_eight(args.x, 8 * own, to_chunk<Elem::bf16>(v));
}

}  // namespace

void launch_hadamard(const HadamardTask& task, StreamHandle stream) {
  const std::int64_t eights = task.rows * task.heads * task.head_dim / 8;
  launch_early(
      hadamard, ceil_div<std::int64_t>(eights, kThreads), kThreads,
      Args{task.x, eights, static_cast<int>(task.head_dim / 8), 1.0f / std::sqrt(static_cast<float>(task.head_dim))},
      stream);
}

}  // namespace lowp::kernels::cuda
