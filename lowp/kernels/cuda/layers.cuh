// What the kernels of layers.h share.
#pragma once

#include "lowp/kernels/cuda/chunk.cuh"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemm_ptx.cuh"
#include "lowp/kernels/cuda/layers.h"

namespace lowp::kernels::cuda {

using Bf16x8 = Chunk<Elem::bf16>;

/// Bf16x8 values that an earlier kernel of the stream has written. Not through Chunk::load, whose reads of constant
/// memory the compiler may move in front of the wait for that kernel.
__device__ __forceinline__ Bf16x8 load_written(const void* x, std::int64_t value) {
  const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(x) + value);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void store_eight(void* x, std::int64_t value, const Bf16x8& chunk) {
  *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(x) + value) =
      uint4{chunk.word[0], chunk.word[1], chunk.word[2], chunk.word[3]};
}

/// Bf16x8 f32 of constant memory.
__device__ __forceinline__ void load_constants(const float* from, float (&to)[8]) {
  const float4 a = __ldg(reinterpret_cast<const float4*>(from)), b = __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
  to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

__device__ __forceinline__ float round_bf16(float x) { return bits_float(ptx::cvt_bf16x2(x, x) << 16); }

/// Kernels whose blocks hold a row in registers: chunk i of a thread is chunk row_chunk(i) of the row.
inline constexpr int kRowChunks = 4;
static_assert(512 * kRowChunks * 8 == kMostRow);
constexpr int row_threads(std::int64_t width) {
  return static_cast<int>(round_up<std::int64_t>(ceil_div<std::int64_t>(width, 8 * kRowChunks), 32));
}
__device__ __forceinline__ int row_chunk(int i) {
  return i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
}

/// Enqueues a kernel of one argument that may begin before its predecessor ends. It has to wait by
/// ptx::wait_for_predecessor before it touches what other kernels write, in every block.
template <typename Args>
void launch_early(void (*kernel)(Args), std::int64_t blocks, int threads, Args args, StreamHandle stream,
                  int shared_bytes = 0) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  allow_shared(function, shared_bytes);
  void* arguments[] = {&args};
  launch(function,
         {.blocks = static_cast<int>(blocks),
          .threads = threads,
          .shared_bytes = shared_bytes,
          .overlaps_predecessor = true},
         arguments, stream);
}

}  // namespace lowp::kernels::cuda
