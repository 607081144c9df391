#include <cuda_bf16.h>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/experts.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) add_weighted(const __grid_constant__ CombineTask task) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chunks = task.width / 8;
  if (index >= task.rows * chunks) return;
  const std::int64_t row = index / chunks, at = index % chunks;
  const auto round = [](float x) {
    return bits_float(static_cast<std::uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(x))) << 16);
  };
  float sum[8] = {};
  for (std::int64_t i = 0; i < task.top; ++i) {
    const float weight = task.weights[row * task.top + i];
    const uint4 words = static_cast<const uint4*>(task.outputs)[task.visits[row * task.top + i] * chunks + at];
    const std::uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float value = bits_float(j % 2 ? word[j / 2] & 0xFFFF0000u : word[j / 2] << 16);
      sum[j] = round(__fadd_rn(sum[j], round(__fmul_rn(value, weight))));
    }
  }
  std::uint32_t word[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) word[j] = float_bits(sum[2 * j]) >> 16 | (float_bits(sum[2 * j + 1]) & 0xFFFF0000u);
  static_cast<uint4*>(task.out)[index] = uint4{word[0], word[1], word[2], word[3]};
}

}  // namespace

void combine(const CombineTask& task, StreamHandle stream) {
  if (task.rows == 0) return;
  const std::int64_t threads = task.rows * task.width / 8;
  add_weighted<<<static_cast<unsigned>(ceil_div<std::int64_t>(threads, kThreads)), kThreads, 0, stream>>>(task);
  check_launch("combine");
}

}  // namespace lowp::kernels::cuda
