#include "lowp/kernels/cuda/cast_norm.cuh"
#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/gate.h"

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

// A block for a row, kChunks chunks for each thread.
constexpr int kChunks = 4;
__global__ void __launch_bounds__(512) add_and_norm(const __grid_constant__ AddNormTask task) {
  ptx::launch_dependents();
  const std::int64_t base = blockIdx.x * task.width;
  const int chunks = static_cast<int>(task.width) / 8;
  float weight[kChunks][8] = {};
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int at = i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    if (task.out && at < chunks) load_constants(task.weight + at * 8, weight[i]);
  }
  ptx::wait_for_predecessor();
  Bf16x8 x[kChunks], y[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int at = i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    x[i].clear();
    y[i].clear();
    if (at >= chunks) continue;
    x[i] = load_written(task.stream, base + at * 8);
    if (task.add) y[i] = load_written(task.add, base + at * 8);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int at = i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    if (task.add) {
#pragma unroll
      for (int j = 0; j < 4; ++j) x[i].word[j] = ptx::add_bf16x2(x[i].word[j], y[i].word[j]);
      if (at < chunks) store_eight(task.stream, base + at * 8, x[i]);
    }
    float v[8];
    x[i].values(v);
#pragma unroll
    for (const float s : v) squares = __fmaf_rn(s, s, squares);
  }
  if (!task.out) return;
  const float mean = formats::divide(sum_over_block(squares), static_cast<float>(task.width));
  const float scale = formats::divide(1.0f, __fsqrt_rn(mean + task.eps));
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int at = i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    if (at >= chunks) continue;
    float v[8];
    x[i].values(v);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      v[j] *= scale;
      v[j] = weight[i][j] * (task.round_quotient ? round_bf16(v[j]) : v[j]);
    }
    store_eight(task.out, base + at * 8, to_chunk<Elem::bf16>(v));
  }
}

__device__ __forceinline__ Bf16x8 gelu8(const Bf16x8& chunk) {
  float v[8];
  chunk.values(v);
#pragma unroll
  for (float& x : v) x = gelu(x);
  return to_chunk<Elem::bf16>(v);
}

// Each step rounded, as kernels/cpu's clamped_mul does.
__device__ __forceinline__ Bf16x8 clamped8(const Bf16x8& gate, const Bf16x8& up) {
  float g[8], u[8];
  gate.values(g);
  up.values(u);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    g[i] = g[i] > kGateLimit ? kGateLimit : g[i];  // NaN passes
    u[i] = u[i] > kGateLimit ? kGateLimit : u[i] < -kGateLimit ? -kGateLimit : u[i];
    const float sigmoid = round_bf16(formats::divide(1.0f, 1.0f + exp_f32(-round_bf16(g[i] * kGateSlope))));
    g[i] = round_bf16(u[i] + 1.0f) * round_bf16(g[i] * sigmoid);
  }
  return to_chunk<Elem::bf16>(g);
}

template <GateActivation kActivation>
__device__ __forceinline__ Bf16x8 gated(const Bf16x8& gate, const Bf16x8& up) {
  if constexpr (kActivation == GateActivation::clamped) return clamped8(gate, up);
  return multiply(kActivation == GateActivation::silu ? silu8(gate) : gelu8(gate), up);
}

template <GateActivation kActivation>
__global__ void __launch_bounds__(kThreads) gate_and_multiply(const __grid_constant__ GateTask task) {
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chunks = task.width / 8;
  if (index >= task.rows * chunks) return;
  const std::int64_t row = index / chunks, at = index % chunks * 8;
  const Bf16x8 gate = load_written(task.gate, row * task.gate_stride + at),
               up = load_written(task.up, row * task.up_stride + at);
  store_eight(task.out, row * task.width + at, gated<kActivation>(gate, up));
}

}  // namespace

void launch_gather(const GatherTask& task, StreamHandle stream) {
  launch_early(gather, ceil_div<std::int64_t>(task.rows * task.width / 8, kThreads), kThreads, task, stream);
}

void launch_add_norm(const AddNormTask& task, StreamHandle stream) {
  const std::int64_t threads = round_up<std::int64_t>(ceil_div<std::int64_t>(task.width, 8 * kChunks), 32);
  launch_early(add_and_norm, task.rows, static_cast<int>(threads), task, stream);
}

void launch_gate(const GateTask& task, StreamHandle stream) {
  const auto kernel = task.activation == GateActivation::silu        ? gate_and_multiply<GateActivation::silu>
                      : task.activation == GateActivation::gelu_tanh ? gate_and_multiply<GateActivation::gelu_tanh>
                                                                     : gate_and_multiply<GateActivation::clamped>;
  launch_early(kernel, ceil_div<std::int64_t>(task.rows * task.width / 8, kThreads), kThreads, task, stream);
}

}  // namespace lowp::kernels::cuda
