#include <cmath>

#include "lowp/kernels/attention_e4m3.h"
#include "lowp/kernels/cuda/cast_row.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/hadamard.cuh"
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
  hadamard_butterflies(v, lane_in_head, static_cast<int>(args.task.dim) / 8);
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

// Stores eight codes of a token's head in its page, and the scale that all of the head have.
__device__ void store_in_page(const HeadsTask& task, std::int64_t batch, std::int64_t token, int head, int lane_in_head,
                              std::uint64_t codes, float descale) {
  const KvPageLayout& layout = task.kv.layout;
  const int slot = static_cast<int>(token % kPageTokens);
  auto* page = static_cast<unsigned char*>(task.kv.pages[batch * task.kv.max_pages + token / kPageTokens]) +
               task.kv.layer_offset;
  auto* to = page + (task.are_values ? layout.values_at(head) : layout.keys_at(head));
  *reinterpret_cast<std::uint64_t*>(to + layout.offset(slot, 8 * lane_in_head)) = codes;
  if (lane_in_head > 0) return;
  auto* scales = page + (task.are_values ? layout.value_scales_at(head) : layout.key_scales_at(head));
  reinterpret_cast<float*>(scales)[slot] = descale;
}

// dim / 8 lanes hold a head of a token; a thread takes kHeads heads of kTokens tokens, which share their angles.
// grid: tokens, heads / kHeads, batch.
enum class Pass { amax, codes, attention };  // attention: to where that wants them
template <Elem In, Pass kPass>
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
      if constexpr (kPass != Pass::amax) {
        const std::int64_t head = first_head + h;
        const Chunk<In> rounded = to_chunk<In>(v);
        if (kPass == Pass::attention && task.rotated) {
          const std::int64_t place = ((batch * task.seq + token) * task.heads + head) * lanes + lane_in_head;
          static_cast<uint4*>(task.rotated)[place] = {rounded.word[0], rounded.word[1], rounded.word[2],
                                                      rounded.word[3]};
          continue;
        }
        const E4m3Scales scale =
            e4m3_scales(bits_float(__ldg(task.amax + batch * scales + head / task.heads_per_scale)));
        Eight y;
        rounded.values(y.x);
#pragma unroll
        for (int i = 0; i < 8; ++i) y.x[i] *= scale.up;
        const std::uint64_t codes = encode8_bytes<Elem::e4m3>(y.x);
        const std::int64_t place = (batch * task.heads + head) * task.seq + token;
        if constexpr (kPass == Pass::codes)
          static_cast<std::uint64_t*>(task.codes)[place * lanes + lane_in_head] = codes;
        else
          store_in_page(task, batch, token, static_cast<int>(head), lane_in_head, codes, scale.down);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) most[h] = fmaxf(most[h], fabsf(v[i]));
      }
    }
  }
  if constexpr (kPass == Pass::amax) {
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
  descale[i] = e4m3_scales(bits_float(amax[i])).down;
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
    rope_heads<in(), Pass::amax><<<grid, kThreads, 0, stream>>>(args);
    if (task.codes) rope_heads<in(), Pass::codes><<<grid, kThreads, 0, stream>>>(args);
  });
  if (!task.codes) rope_heads<Elem::bf16, Pass::attention><<<grid, kThreads, 0, stream>>>(args);
  write_descales<<<static_cast<unsigned>(ceil_div<std::int64_t>(scales, 256)), 256, 0, stream>>>(task.amax, scales,
                                                                                                 task.descale);
  check_launch("rope_cast");
}

}  // namespace lowp::kernels::cuda
