#include "lowp/kernels/cuda/add_norm.cuh"
#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/layers_launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) gather(const __grid_constant__ GatherTask task) {
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chunks = task.width / 8;
  if (index >= task.rows * chunks) return;
  const std::int64_t row = index / chunks, at = index % chunks * 8, token = task.tokens[row];
  Bf16x8 out{};
  if (token >= 0 && token < task.vocab) {
    float v[8];
    load_written(task.table, token * task.width + at).values(v);
#pragma unroll
    for (float& x : v) x *= task.scale;
    out = to_chunk<Elem::bf16>(v);
  }
  store_eight(task.out, row * task.width + at, out);
}

__global__ void __launch_bounds__(512) add_and_norm(const __grid_constant__ AddNormTask task) {
  ptx::launch_dependents();
  Bf16x8 row[kRowChunks];
  normalised_row(task, blockIdx.x, true, row);
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i)
    if (const int at = row_chunk(i); at < task.width / 8)
      store_eight(task.out, blockIdx.x * task.width + at * 8, row[i]);
}

struct GateArgs {
  GateTask task;
  Gate kind;
};

__global__ void __launch_bounds__(kThreads) gate_and_multiply(const __grid_constant__ GateArgs args) {
  const GateTask& task = args.task;
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chunks = task.width / 8;
  if (index >= task.rows * chunks) return;
  const std::int64_t row = index / chunks, at = index % chunks * 8;
  const std::int64_t from = task.by_eights ? 2 * at : at;
  const Bf16x8 gate = load_written(task.gate, row * task.gate_stride + from),
               up = load_written(task.up, row * task.up_stride + from);
  store_eight(task.out, row * task.width + at, gated(args.kind, gate, up));
}

}  // namespace

void launch_gather(const GatherTask& task, StreamHandle stream) {
  launch_early(gather, ceil_div<std::int64_t>(task.rows * task.width / 8, kThreads), kThreads, task, stream);
}

void launch_add_norm(const AddNormTask& task, StreamHandle stream) {
  launch_early(add_and_norm, task.rows, row_threads(task.width), task, stream);
}

void launch_gate(const GateTask& task, StreamHandle stream) {
  launch_early(gate_and_multiply, ceil_div<std::int64_t>(task.rows * task.width / 8, kThreads), kThreads,
               GateArgs{task, gate_of(task.activation)}, stream);
}

}  // namespace lowp::kernels::cuda
