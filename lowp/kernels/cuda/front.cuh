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

/// One of eight values replaced by silu's definition, rounded to the input's dtype. `at` need not be a constant.
template <Elem In>
__device__ __forceinline__ void define_silu(const float (&x)[8], int at, Chunk<In>& out) {
  float one = x[0];
#pragma unroll
  for (int i = 1; i < 8; ++i) one = i == at ? x[i] : one;
  one = silu(one);
  const std::uint32_t both = pack_pair<In>(one, one), mask = 0xFFFFu << 16 * (at % 2);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i == at / 2) out.word[i] = (out.word[i] & ~mask) | (both & mask);
}

/// silu of eight values, rounded to the input's dtype: the bits of kernels::silu.
///
/// The hardware's exponential and reciprocal are right in all but the last places of f32. For bf16 that is enough: no
/// bf16 has a silu so near the middle of two that it comes out wrong (a test compares all of them on the device). For
/// f16 what lies within the error of such a middle takes the definition. The error, relative to the result, is that of
/// the exponential's argument (half a unit in its last place: more for larger arguments), 2 units in the last place of
/// ex2, 1 of rcp, and up to 3 of the definition itself. Below -80 the exponential overflows.
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
    std::uint32_t doubtful = least > -80 ? 0 : 0xFFu;
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = x[i] * ptx::rcp_approx(1.0f + ptx::ex2_approx(x[i] * -1.44269504088896341f));
    if constexpr (In == Elem::bf16) {
      out = to_chunk<In>(y);
    } else {
      const float margin = least > -8 ? 0x1p-19f : 0x1p-17f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float a = y[2 * i], b = y[2 * i + 1];
        out.word[i] = pack_pair<In>(a * (1 - margin), b * (1 - margin));
        const std::uint32_t differ = out.word[i] ^ pack_pair<In>(a * (1 + margin), b * (1 + margin));
        doubtful |= (differ & 0xFFFFu ? 1u : 0u) << 2 * i | (differ >> 16 ? 2u : 0u) << 2 * i;
      }
    }
#pragma unroll 1
    for (; doubtful; doubtful &= doubtful - 1) define_silu(x, __ffs(static_cast<int>(doubtful)) - 1, out);
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
