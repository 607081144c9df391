#include <cmath>

#include "lowp/kernels/cuda/cast_row.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/launch.h"
#include "lowp/kernels/cuda/rope.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256, kHeads = 4, kTokens = 4;  // heads of a thread, and tokens one after the other

struct Args {
  HeadsTask task;
  float hadamard_scale = 1;  // 1 / sqrt(dim)
};

// Rotates the eight values of a lane by angles that it holds; the partner's are in the lane `across` away, or, where
// pairs are neighbours, its own.
__device__ void rotate(const Args& args, int lane_in_head, const float (&c)[8], const float (&s)[8], float (&v)[8]) {
  if (args.task.interleaved) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const float a = v[i], b = v[i + 1];
      v[i] = __fmaf_rn(a, c[i / 2], -(b * s[i / 2]));
      v[i + 1] = __fmaf_rn(b, c[i / 2], a * s[i / 2]);
    }
    return;
  }
  const int across = static_cast<int>(args.task.dim) / 16;
  const bool second = lane_in_head & across;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, v[i], across);
    v[i] = __fmaf_rn(v[i], c[i], second ? other * s[i] : -(other * s[i]));
  }
}

__device__ void hadamard(const Args& args, int lane_in_head, float (&v)[8]) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2) hadamard_step<8>(v, distance);
  for (int lanes = 1; lanes < args.task.dim / 8; lanes *= 2) {
    const bool second = lane_in_head & lanes;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, v[i], lanes);
      v[i] = second ? other - v[i] : v[i] + other;
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= args.hadamard_scale;
}

// Eight f32 (four where pairs are neighbours) of a row of angles.
__device__ void load_angles(const float* from, bool interleaved, float (&to)[8]) {
  const float4 a = __ldg(reinterpret_cast<const float4*>(from));
  const float4 b = interleaved ? a : __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
  to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

// dim / 8 lanes hold a head of a token; a thread takes kHeads heads of kTokens tokens, which share their angles.
// grid: tokens, heads / kHeads, batch. Without kEncode it only finds the largest magnitudes.
template <Elem In, bool kEncode>
__global__ void __launch_bounds__(kThreads) rope_heads(const __grid_constant__ Args args) {
  const HeadsTask& task = args.task;
  const int lanes = static_cast<int>(task.dim) / 8, lane_in_head = static_cast<int>(threadIdx.x) % lanes;
  const int tokens = kThreads / lanes;  // of the block at a time
  const std::int64_t first_head = std::int64_t{blockIdx.y} * kHeads, batch = blockIdx.z;
  const std::int64_t scales = task.heads / task.heads_per_scale;
  float most[kHeads] = {};
#pragma unroll 1
  for (int t = 0; t < kTokens; ++t) {
    const std::int64_t token =
        (std::int64_t{blockIdx.x} * kTokens + t) * tokens + static_cast<std::int64_t>(threadIdx.x) / lanes;
    const bool inside = token < task.seq;
    float c[8], s[8];
    if (task.cos && inside) {
      const std::int64_t half = task.dim / 2;
      const std::int64_t at = token * half + (task.interleaved ? lane_in_head * 4 : lane_in_head * 8 % half);
      load_angles(task.cos + at, task.interleaved, c);
      load_angles(task.sin + at, task.interleaved, s);
    }
    Chunk<In> chunk[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (inside && first_head + h < task.heads)
        chunk[h].load(task.x, static_cast<std::size_t>(
                                  ((batch * task.seq + token) * task.heads + first_head + h) * lanes + lane_in_head));
      else
        chunk[h].clear();
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      float v[8];
      chunk[h].values(v);
      if (task.cos) rotate(args, lane_in_head, c, s, v);
      if (task.hadamard) hadamard(args, lane_in_head, v);
      if (!inside || first_head + h >= task.heads) continue;
      if constexpr (kEncode) {
        const float amax = bits_float(__ldg(task.amax + batch * scales + (first_head + h) / task.heads_per_scale));
        const float scale = amax <= 1e-12f ? 1.0f : formats::divide(448.0f, amax);
        Eight y;
        to_chunk<In>(v).values(y.x);
#pragma unroll
        for (int i = 0; i < 8; ++i) y.x[i] *= scale;
        const std::int64_t place = (batch * task.heads + first_head + h) * task.seq + token;
        static_cast<std::uint64_t*>(task.codes)[place * lanes + lane_in_head] = encode8_bytes<Elem::e4m3>(y.x);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) most[h] = fmaxf(most[h], fabsf(v[i]));
      }
    }
  }
  if constexpr (!kEncode) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const std::uint32_t all = combine_over_block<Elem::f32>(float_bits(most[h]));
      __syncthreads();  // before the shared memory of the combination is used again
      if (threadIdx.x == 0 && first_head + h < task.heads)
        atomicMax(task.amax + batch * scales + (first_head + h) / task.heads_per_scale, all);
    }
  }
}

__global__ void write_descales(const std::uint32_t* amax, std::int64_t count, float* descale) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float most = bits_float(amax[i]);
  descale[i] = most <= 1e-12f ? 1.0f : formats::divide(most, 448.0f);
}

}  // namespace

void launch_rope(const HeadsTask& task, StreamHandle stream) {
  const std::int64_t scales = task.batch * task.heads / task.heads_per_scale;
  fill(task.amax, 0, static_cast<std::size_t>(scales) * sizeof *task.amax, stream);
  const Args args = {task, 1.0f / std::sqrt(static_cast<float>(task.dim))};
  const std::int64_t tokens = kThreads / (task.dim / 8) * kTokens;
  const dim3 grid(static_cast<unsigned>(ceil_div(task.seq, tokens)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(task.heads, kHeads)), static_cast<unsigned>(task.batch));
  for_input(task.input, [&](auto in) {
    rope_heads<in(), false><<<grid, kThreads, 0, stream>>>(args);
    rope_heads<in(), true><<<grid, kThreads, 0, stream>>>(args);
  });
  write_descales<<<static_cast<unsigned>(ceil_div<std::int64_t>(scales, 256)), 256, 0, stream>>>(task.amax, scales,
                                                                                                 task.descale);
  check_launch("rope_cast");
}

}  // namespace lowp::kernels::cuda
