// Eight consecutive input values in registers, and the largest magnitude among values in packed form.
#pragma once

#include <cuda_fp16.h>

#include "lowp/formats/quantize.h"
#include "lowp/kernels/cuda/ptx.cuh"

namespace lowp::kernels::cuda {

using formats::Elem;

/// Largest magnitudes in packed form: two 16-bit floats, or the bits of one f32. NaN and infinity win.
template <Elem In>
__device__ __forceinline__ std::uint32_t max_abs(std::uint32_t a, std::uint32_t b) {
  if constexpr (In == Elem::bf16) return ptx::max_abs_bf16x2(a, b);
  if constexpr (In == Elem::f16) return ptx::max_abs_f16x2(a, b);
  return max(a & 0x7FFFFFFFu, b & 0x7FFFFFFFu);
}

/// f32 bits of the magnitude of a packed value's half (0, 1), or of the f32.
template <Elem In>
__device__ __forceinline__ std::uint32_t magnitude_bits(std::uint32_t packed, int half) {
  const std::uint32_t bits = (half ? packed >> 16 : packed) & 0x7FFFu;
  if constexpr (In == Elem::bf16) return bits << 16;
  if constexpr (In == Elem::f16) return float_bits(__half2float(__ushort_as_half(static_cast<unsigned short>(bits))));
  return packed & 0x7FFFFFFFu;
}

/// f32 bits of the largest magnitude of a packed maximum.
template <Elem In>
__device__ __forceinline__ std::uint32_t amax_bits(std::uint32_t packed) {
  if constexpr (In == Elem::f32) return packed & 0x7FFFFFFFu;
  const std::uint32_t low = packed & 0x7FFFu, high = (packed >> 16) & 0x7FFFu;
  return magnitude_bits<In>(max(low, high), 0);
}

/// The two values of a packed pair.
template <Elem In>
__device__ __forceinline__ void unpack_pair(std::uint32_t pair, float& low, float& high) {
  static_assert(In != Elem::f32);
  if constexpr (In == Elem::bf16) {
    low = bits_float(pair << 16);
    high = bits_float(pair & 0xFFFF0000u);
  } else {
    const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&pair));
    low = both.x;
    high = both.y;
  }
}

/// Two values rounded to a packed pair.
template <Elem In>
__device__ __forceinline__ std::uint32_t pack_pair(float low, float high) {
  static_assert(In != Elem::f32);
  return In == Elem::bf16 ? ptx::cvt_bf16x2(low, high) : ptx::cvt_f16x2(low, high);
}

/// Smallest and largest of finite values, packed as Chunk's words are. Which of two zeros it is does not matter.
template <Elem In>
struct Range {
  std::uint32_t low, high;

  __device__ __forceinline__ void add(std::uint32_t other_low, std::uint32_t other_high) {
    if constexpr (In == Elem::bf16) {
      low = ptx::min_bf16x2(low, other_low);
      high = ptx::max_bf16x2(high, other_high);
    } else if constexpr (In == Elem::f16) {
      low = ptx::min_f16x2(low, other_low);
      high = ptx::max_f16x2(high, other_high);
    } else {
      low = float_bits(fminf(bits_float(low), bits_float(other_low)));
      high = float_bits(fmaxf(bits_float(high), bits_float(other_high)));
    }
  }
  __device__ __forceinline__ void add(const Range& other) { add(other.low, other.high); }
  /// Combined with the lane whose id differs in `mask`.
  __device__ __forceinline__ void add_across(int mask) {
    add(__shfl_xor_sync(0xFFFFFFFFu, low, mask), __shfl_xor_sync(0xFFFFFFFFu, high, mask));
  }
  __device__ __forceinline__ formats::GroupStats stats() const {
    formats::GroupStats s;
    s.empty = false;
    if constexpr (In == Elem::f32) {
      s.min = bits_float(low), s.max = bits_float(high);
    } else {
      float a, b;
      unpack_pair<In>(low, a, b);
      s.min = fminf(a, b);
      unpack_pair<In>(high, a, b);
      s.max = fmaxf(a, b);
    }
    return s;
  }
};

/// Eight consecutive values.
template <Elem In>
struct Chunk {
  static constexpr int kWords = In == Elem::f32 ? 8 : 4, kBytes = kWords * 4;
  std::uint32_t word[kWords];

  /// `index`: of the chunk, in units of eight values; x is 16-byte aligned.
  __device__ __forceinline__ void load(const void* x, std::size_t index) {
    const auto* from = static_cast<const unsigned char*>(x) + index * kBytes;
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(from + 16 * i));
      word[4 * i] = v.x;
      word[4 * i + 1] = v.y;
      word[4 * i + 2] = v.z;
      word[4 * i + 3] = v.w;
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = 0;
  }
  __device__ __forceinline__ std::uint32_t max_abs_packed() const {
    std::uint32_t m = max_abs<In>(word[0], word[1]);
#pragma unroll
    for (int i = 2; i < kWords; ++i) m = max_abs<In>(m, word[i]);
    return m;
  }
  __device__ __forceinline__ void values(float (&x)[8]) const {
    if constexpr (In == Elem::f32) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = bits_float(word[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) unpack_pair<In>(word[i], x[2 * i], x[2 * i + 1]);
    }
  }
  __device__ __forceinline__ Range<In> range() const {
    Range<In> r = {word[0], word[0]};
#pragma unroll
    for (int i = 1; i < kWords; ++i) r.add(word[i], word[i]);
    return r;
  }
};

/// Combines with the lane whose id differs in `mask`.
template <Elem In>
__device__ __forceinline__ std::uint32_t combine_across(std::uint32_t packed, int mask) {
  return max_abs<In>(packed, __shfl_xor_sync(0xFFFFFFFFu, packed, mask));
}

}  // namespace lowp::kernels::cuda
