// Packed codes to fragments in registers, of bf16 or of e4m3; see gemm_packed_layout.h. Products with scales round to
// bf16: exactly for powers of two and for nvfp4, and for integers as torchao's dequantize does.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/gemm_packed_layout.h"
#include "lowp/kernels/cuda/gemm_ptx.cuh"
#include "lowp/kernels/cuda/ptx.cuh"

namespace lowp::kernels::cuda {

template <Codes C, Scales S>
struct Decoder {
  static constexpr int kSteps = chunk_depth(C) / 16;  // fragments of a chunk
  static constexpr int kSlots = scale_slots(C, S);
  static constexpr int kLaneScaleBytes = 2 * kSlots * scale_bits(S) / 8;  // of rows g and g + 8

  /// The scales of a lane's rows for a chunk; `unit` is the shared-memory address of the unit.
  static __device__ __forceinline__ uint2 load_scales(std::uint32_t unit, int chunk, int lane) {
    if constexpr (S == Scales::none) return {0, 0};
    constexpr int kChunksOfGroup = scale_group(S) > chunk_depth(C) ? scale_group(S) / chunk_depth(C) : 1;
    const std::uint32_t from =
        unit + kUnitCodes + static_cast<std::uint32_t>((chunk / kChunksOfGroup * 8 + lane / 4) * kLaneScaleBytes);
    if constexpr (kLaneScaleBytes == 8) return ptx::load_shared_8(from);
    if constexpr (kLaneScaleBytes == 4) return {ptx::load_shared_4(from), 0};
    return {ptx::load_shared_2(from), 0};
  }

  /// The multiplier of step `step` for rows g (row = 0) or g + 8 (row = 1), in both halves.
  static __device__ __forceinline__ std::uint32_t multiplier(const uint2& scales, int row, int step) {
    const int slot = row * kSlots + step * 16 / scale_group(S) % kSlots;
    if constexpr (S == Scales::none) {
      return 0x7B807B80u;  // 2^120: what e4m3 placed as bits is short of
    } else if constexpr (S == Scales::exponent32) {
      return (scales.x >> (8 * slot) & 0xFF) * 0x00800080u;
    } else if constexpr (S == Scales::float16) {
      // 2^94 times the scale; row_scale holds the 2^32 that is missing.
      const std::uint32_t word = slot < 4 ? scales.x : scales.y;
      return ptx::pick_bytes(word, 0, 0x4040u | static_cast<unsigned>(slot % 4) * 0x0101u) * 16 + 0x67006700u;
    } else {
      const std::uint32_t word = slot < 2 ? scales.x : scales.y;
      return ptx::pick_bytes(word, 0, slot % 2 ? 0x3232u : 0x1010u);
    }
  }

  /// Fragments of a chunk's steps; `q` is the lane's 16 bytes. Not multiplied by scales they are as split() has them.
  template <bool kMultiplied = true>
  static __device__ __forceinline__ void fragments(const uint4& q, const uint2& scales, std::uint32_t (&a)[kSteps][4]) {
    if constexpr (C == Codes::bf16) {
      a[0][0] = q.x, a[0][1] = q.y, a[0][2] = q.z, a[0][3] = q.w;
    } else {
      const std::uint32_t words[2][2] = {{q.x, q.y}, {q.z, q.w}};
      constexpr int kStepsOfWord = kSteps / 2;
#pragma unroll
      for (int row = 0; row < 2; ++row)
#pragma unroll
        for (int word = 0; word < 2; ++word) {
          std::uint32_t pairs[2 * kStepsOfWord];
          split(words[row][word], pairs);
#pragma unroll
          for (int i = 0; i < kStepsOfWord; ++i) {
            const int step = word * kStepsOfWord + i;
            a[step][row] = pairs[2 * i];
            a[step][2 + row] = pairs[2 * i + 1];
            if constexpr (kMultiplied && (C != Codes::s8 || S != Scales::none)) {
              const std::uint32_t by = multiplier(scales, row, step);
              a[step][row] = ptx::mul_bf16x2(a[step][row], by);
              a[step][2 + row] = ptx::mul_bf16x2(a[step][2 + row], by);
            }
          }
        }
    }
  }

  /// Pairs of bf16: of e4m3 2^-120 and of e2m1 2^-126 times the value, of integers the value.
  static __device__ __forceinline__ void split(std::uint32_t w, std::uint32_t (&r)[2]) {
    if constexpr (C == Codes::e4m3) {
      r[0] = w & 0x87F087F0u;
      r[1] = ((w << 4) & 0x80F080F0u) | ((w >> 4) & 0x07000700u);
    } else {
      // 128 + the low seven bits, minus 128 or, under the sign bit, 256.
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t v = w >> (8 * i);
        r[i] = ptx::add_bf16x2(ptx::and_or<0x007F007Fu, 0x43004300u>(v), ptx::and_or<0x00800080u, 0xC300C300u>(v));
      }
    }
  }
  static __device__ __forceinline__ void split(std::uint32_t w, std::uint32_t (&r)[4]) {
    if constexpr (C == Codes::e2m1) {
      constexpr std::uint32_t kMask = 0x81C081C0u;  // sign at bit 15, exponent and fraction at bits 8 to 6 of each half
      r[0] = w & kMask;
      r[1] = __funnelshift_r(w, w, 6) & kMask;
      r[2] = (w << 4) & kMask;
      r[3] = ((w << 6) & 0x80C080C0u) | ((w >> 2) & 0x01000100u);
    } else {
      // Four bits under the exponent of 16 are 16 + code, and the code of 0 is 8.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t v = i == 0 ? w : i == 3 ? __funnelshift_r(w, w, 12) : w >> (4 * i);
        r[i] = ptx::sub_bf16x2(ptx::and_or<0x00780078u, 0x41804180u>(v), 0x41C041C0u);
      }
    }
  }
};

/// E2M1 times a power of two is a number of e4m3 for twelve powers: eight bytes, one for each magnitude, that move by 8
/// with the power, are looked up by permuting bytes. Exact.
template <>
struct Decoder<Codes::e2m1_folded, Scales::step32> {
  static constexpr int kSteps = 2;  // of 32 of K

  static __device__ __forceinline__ uint2 load_scales(std::uint32_t unit, int chunk, int lane) {
    return {ptx::load_shared_2(unit + kUnitCodes + static_cast<std::uint32_t>((chunk * 8 + lane / 4) * 2)), 0};
  }

  static __device__ __forceinline__ void fragments(const uint4& q, const uint2& scales, std::uint32_t (&a)[kSteps][4]) {
    const std::uint32_t words[kSteps][2] = {{q.x, q.y}, {q.z, q.w}};
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const std::uint32_t power = scales.x >> (8 * row + 4 * step) & 15, w = words[step][row],
                            magnitudes = w & 0x77777777u, low = 0x14100800u + power * 0x08080800u,
                            high = 0x24201C18u + power * 0x08080808u;
        a[step][row] = ptx::pick_bytes(low, high, magnitudes) | (w & 0x80808080u);
        a[step][2 + row] = ptx::pick_bytes(low, high, magnitudes >> 16) | ((w << 4) & 0x80808080u);
      }
  }
};

}  // namespace lowp::kernels::cuda
