// What stands in front of a cast: loaders of eight values that compute them from what they read. A kernel loads the
// operands of several chunks first and asks for the values afterwards; all lanes of a warp ask together.
#pragma once

#include "lowp/kernels/cuda/cast_args.h"
#include "lowp/kernels/cuda/chunk.cuh"
#include "lowp/kernels/cuda/fast_codec.h"
#include "lowp/kernels/front.h"
#include "lowp/kernels/hadamard.h"

namespace lowp::kernels::cuda {

/// Rounds eight values to the input's dtype.
template <Elem In>
__device__ __forceinline__ Chunk<In> to_chunk(const float (&x)[8]) {
  Chunk<In> out;
  if constexpr (In == Elem::f32) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out.word[i] = float_bits(x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) out.word[i] = pack_pair<In>(x[2 * i], x[2 * i + 1]);
  }
  return out;
}

/// Products of eight pairs, rounded to the input's dtype.
template <Elem In>
__device__ __forceinline__ Chunk<In> multiply(const Chunk<In>& a, const Chunk<In>& b) {
  Chunk<In> out;
#pragma unroll
  for (int i = 0; i < Chunk<In>::kWords; ++i) {
    if constexpr (In == Elem::bf16) out.word[i] = ptx::mul_bf16x2(a.word[i], b.word[i]);
    if constexpr (In == Elem::f16) out.word[i] = ptx::mul_f16x2(a.word[i], b.word[i]);
    if constexpr (In == Elem::f32) out.word[i] = float_bits(bits_float(a.word[i]) * bits_float(b.word[i]));
  }
  return out;
}

/// silu of eight values, rounded to the input's dtype: the bits of kernels::silu.
///
/// 16-bit results are decided by the hardware's approximations where the whole interval of their error rounds to one
/// number; the few others are computed by the definition, one value at a time. The error, relative to the result, is
/// that of the exponential's argument (half a unit in its last place: more for larger arguments), 2 units in the last
/// place of ex2, 1 of rcp, and up to 3 of the definition itself.
template <Elem In>
__device__ __forceinline__ Chunk<In> silu8(const Chunk<In>& chunk) {
  float x[8];
  chunk.values(x);
  Chunk<In> out;
  if constexpr (In == Elem::f32) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out.word[i] = float_bits(silu(x[i]));
  } else {
    const float least = chunk.range().stats().min;
    const float margin = least > -8 ? 0x1p-19f : 0x1p-17f, below = 1 - margin, above = 1 + margin;
    Chunk<In> upper;
    std::uint32_t differ = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float y[2];
#pragma unroll
      for (int j = 0; j < 2; ++j)
        y[j] = x[2 * i + j] * ptx::rcp_approx(1.0f + ptx::ex2_approx(x[2 * i + j] * -1.44269504088896341f));
      out.word[i] = pack_pair<In>(y[0] * below, y[1] * below);
      upper.word[i] = pack_pair<In>(y[0] * above, y[1] * above);
      differ |= out.word[i] ^ upper.word[i];
    }
    const bool overflows = !(least > -80);  // of the exponential
    if (differ != 0 || overflows) {
      std::uint32_t doubtful = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (overflows || (out.word[i / 2] ^ upper.word[i / 2]) & 0xFFFFu << 16 * (i % 2)) doubtful |= 1u << i;
#pragma unroll 1
      for (; doubtful; doubtful &= doubtful - 1) {
        const int at = __ffs(static_cast<int>(doubtful)) - 1;
        float one = x[0];
#pragma unroll
        for (int i = 1; i < 8; ++i) one = i == at ? x[i] : one;
        one = silu(one);
        const std::uint32_t both = pack_pair<In>(one, one), mask = 0xFFFFu << 16 * (at % 2);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (i == at / 2) out.word[i] = (out.word[i] & ~mask) | (both & mask);
      }
    }
  }
  return out;
}

/// max(x, 0) of eight values; NaN stays.
template <Elem In>
__device__ __forceinline__ Chunk<In> relu8(const Chunk<In>& chunk) {
  Chunk<In> out;
#pragma unroll
  for (int i = 0; i < Chunk<In>::kWords; ++i) {
    const std::uint32_t w = chunk.word[i];
    if constexpr (In == Elem::bf16) out.word[i] = ptx::max_nan_bf16x2(w, 0);
    if constexpr (In == Elem::f16) out.word[i] = ptx::max_nan_f16x2(w, 0);
    if constexpr (In == Elem::f32) out.word[i] = bits_float(w) <= 0 ? 0u : w;
  }
  return out;
}

/// x itself.
template <Elem In>
struct Plain {
  static constexpr bool kHeavy = false;  // registers
  Chunk<In> x;

  __device__ __forceinline__ void load(const RowsArgs& args, std::size_t chunk) { x.load(args.x, chunk); }
  __device__ __forceinline__ void clear() { x.clear(); }
  __device__ __forceinline__ const Chunk<In>& values(const RowsArgs&) const { return x; }
};

/// silu(x) * other, or max(x, 0).
template <Elem In>
struct Activation {
  static constexpr bool kHeavy = true;
  Chunk<In> x, other;

  __device__ __forceinline__ void load(const RowsArgs& args, std::size_t chunk) {
    x.load(args.x, chunk);
    if (args.front.kind == Front::silu_mul) other.load(args.front.other, chunk);
  }
  __device__ __forceinline__ void clear() {
    x.clear();
    other.clear();
  }
  __device__ __forceinline__ Chunk<In> values(const RowsArgs& args) const {
    return args.front.kind == Front::silu_mul ? multiply(silu8(x), other) : relu8(x);
  }
};

/// hadamard16 of runs of two chunks, which neighbouring lanes hold.
template <Elem In>
__device__ __forceinline__ Chunk<In> hadamard_across(const Chunk<In>& chunk) {
  const bool second = threadIdx.x % 2;
  float v[8];
  chunk.values(v);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = second ? hadamard_sign(v[i], i + 8) : hadamard_sign(v[i], i);
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2) hadamard_step<8>(v, distance);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, v[i], 1);
    v[i] = (second ? other - v[i] : v[i] + other) * 0.25f;
  }
  return to_chunk<In>(v);
}
template <Elem In>
struct Rotated {
  static constexpr bool kHeavy = true;
  Chunk<In> x;

  __device__ __forceinline__ void load(const RowsArgs& args, std::size_t chunk) { x.load(args.x, chunk); }
  __device__ __forceinline__ void clear() { x.clear(); }
  __device__ __forceinline__ Chunk<In> values(const RowsArgs&) const { return hadamard_across(x); }
};

}  // namespace lowp::kernels::cuda
