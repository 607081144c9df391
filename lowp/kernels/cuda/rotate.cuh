// The norms of heads, RoPE, and a token's key and value in a page: head_dim / 16 threads for each head.
#pragma once

#include <cmath>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/layers.cuh"

namespace lowp::kernels::cuda {

/// What a thread has of a head: values [8 t, 8 t + 8), and those that RoPE pairs them with, half the head further.
struct HeadValues {
  float low[8], high[8];

  __device__ __forceinline__ void load(const void* head, std::int64_t begin, int t, int half) {
    load_written(head, begin + 8 * t).values(low);
    load_written(head, begin + half + 8 * t).values(high);
  }
};

/// Over the threads of a head, whose number is a power of two.
template <typename T, typename Combine>
__device__ __forceinline__ T over_head(T mine, int threads, Combine combine) {
  for (int mask = threads / 2; mask > 0; mask /= 2) mine = combine(mine, __shfl_xor_sync(0xFFFFFFFFu, mine, mask));
  return mine;
}

__device__ __forceinline__ void normalise(HeadValues& x, const float* weight, float eps, bool round_quotient, int t,
                                          int threads) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = __fmaf_rn(x.high[i], x.high[i], __fmaf_rn(x.low[i], x.low[i], squares));
  squares = over_head(squares, threads, [](float a, float b) { return a + b; });
  const float scale =
      formats::divide(1.0f, __fsqrt_rn(formats::divide(squares, static_cast<float>(16 * threads)) + eps));
  const auto apply = [&](float(&v)[8], const float* w) {
    float factor[8];
    load_constants(w, factor);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      v[i] *= scale;
      v[i] = round_bf16(factor[i] * (round_quotient ? round_bf16(v[i]) : v[i]));
    }
  };
  apply(x.low, weight + 8 * t);
  apply(x.high, weight + 8 * threads + 8 * t);
}

/// What a thread turns its values by, which are at the same places of all heads.
struct Angles {
  float cos[8], sin[8];

  __device__ __forceinline__ void load(const RotateStoreTask& task, int position, int t, int half) {
    const std::int64_t at = static_cast<std::int64_t>(position) * half + 8 * t;
    load_constants(task.cos + at, cos);
    load_constants(task.sin + at, sin);
  }

  __device__ __forceinline__ void rotate(HeadValues& x) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float a = x.low[i], b = x.high[i];
      x.low[i] = round_bf16(round_bf16(a * cos[i]) - round_bf16(b * sin[i]));
      x.high[i] = round_bf16(round_bf16(b * cos[i]) + round_bf16(a * sin[i]));
    }
  }
};

template <Elem kType>
__device__ __forceinline__ std::uint64_t encode_kv(const float (&v)[8], float scale) {
  std::uint64_t codes = 0;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    std::uint32_t two;
    const float a = formats::divide(v[i], scale), b = formats::divide(v[i + 1], scale);
    if constexpr (kType == Elem::e4m3)
      two = ptx::cvt_e4m3x2(a, b);
    else
      two = (static_cast<std::uint32_t>(__float2int_rn(a)) & 0xFF) |
            (static_cast<std::uint32_t>(__float2int_rn(b)) & 0xFF) << 8;
    codes |= static_cast<std::uint64_t>(two) << 8 * i;
  }
  return codes;
}

/// Stores a token's key or value at `to`, where its planes begin, and its scale at `scale`; by all threads of a head.
template <Elem kType>
__device__ __forceinline__ void store_kv(const HeadValues& x, const KvPageLayout& layout, unsigned char* to,
                                         float* scale, int token, int t, int threads, bool present) {
  const int low = layout.offset(token, 8 * t), high = layout.offset(token, 8 * threads + 8 * t);
  if constexpr (kType == Elem::bf16) {
    if (!present) return;
    store_eight(to + low, 0, to_chunk<Elem::bf16>(x.low));
    store_eight(to + high, 0, to_chunk<Elem::bf16>(x.high));
  } else {
    std::uint32_t amax = 0;  // as bits: whatever is not finite wins
#pragma unroll
    for (int i = 0; i < 8; ++i)
      amax = max(amax, max(float_bits(x.low[i]) & 0x7FFFFFFFu, float_bits(x.high[i]) & 0x7FFFFFFFu));
    amax = over_head(amax, threads, [](std::uint32_t a, std::uint32_t b) { return max(a, b); });
    if (!present) return;
    constexpr float kLargest = kType == Elem::e4m3 ? 448.0f : 127.0f;
    const float found = is_finite(bits_float(amax)) ? formats::divide(bits_float(amax), kLargest) : NAN;
    const bool codes = found > 0;
    *reinterpret_cast<std::uint64_t*>(to + low) = codes ? encode_kv<kType>(x.low, found) : 0;
    *reinterpret_cast<std::uint64_t*>(to + high) = codes ? encode_kv<kType>(x.high, found) : 0;
    if (t == 0) scale[token] = found;
  }
}

enum class HeadKind : std::uint8_t { query, key, value };

/// The norm of a head, where its kind has one, and RoPE. All lanes of a warp call it, whatever their kinds.
__device__ __forceinline__ void turn_head(const RotateStoreTask& task, HeadKind kind, const Angles& angles,
                                          HeadValues& x, int t, int threads) {
  if (task.q_norm || task.k_norm) {
    const float* weight = kind == HeadKind::query ? task.q_norm : task.k_norm;
    HeadValues normal = x;
    normalise(normal,
              weight        ? weight
              : task.q_norm ? task.q_norm
                            : task.k_norm,
              task.eps, task.round_quotient, t, threads);
    if (kind != HeadKind::value && weight) x = normal;
  }
  if (kind != HeadKind::value) angles.rotate(x);
}

}  // namespace lowp::kernels::cuda
