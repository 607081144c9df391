// What the tensor cores' synchronous products of attention multiply: operands from a page in shared memory, and
// queries.
//
// bf16 is multiplied as it is. Codes of 8 bits become f16, which holds them exactly, and so do the queries, after a
// power of two has brought the largest of a row between 1 and 2; weights are multiplied by the values' scales over a
// power of two (ValuePower). Lanes are (g, t) = (lane / 4, lane % 4).
#pragma once

#include "lowp/kernels/cuda/attention_ptx.cuh"
#include "lowp/kernels/cuda/gemm_ptx.cuh"
#include "lowp/kernels/cuda/kv_pages.h"
#include "lowp/kernels/cuda/ptx.cuh"

namespace lowp::kernels::cuda {

using formats::Elem;

inline constexpr float kLog2e = 1.4426950408889634f;

template <Elem kKvType, int kHeadDim>
struct Operands {
  static constexpr Elem kType = kKvType;
  static constexpr bool k8Bit = kType != Elem::bf16;
  static constexpr int kDim = kHeadDim, kSteps = kDim / 16;
  static constexpr KvPageLayout kLayout{kType, 1, kDim};
  static constexpr int kRowBytes = kLayout.row_bytes(), kRowChunks = kRowBytes / 16;
  static constexpr int kKeysBytes = static_cast<int>(kLayout.keys_bytes()),
                       kHeadBytes = static_cast<int>(kLayout.head_bytes());

  /// The pairs of a query row that a lane has of a step of 16 values: 2t, 2t + 1 and 8 + 2t, 9 + 2t, or, with 8 bits,
  /// in the order in which ldmatrix deals codes, 4t .. 4t + 3. Zeros where there is no row.
  static __device__ __forceinline__ uint2 query_pairs(const std::uint16_t* row, int step, int t) {
    if (!row) return {0, 0};
    if constexpr (k8Bit) return *reinterpret_cast<const uint2*>(row + 16 * step + 4 * t);
    return {*reinterpret_cast<const std::uint32_t*>(row + 16 * step + 2 * t),
            *reinterpret_cast<const std::uint32_t*>(row + 16 * step + 8 + 2 * t)};
  }

  /// The power of two that the queries of a row are divided by.
  static __device__ __forceinline__ float query_power(const std::uint16_t* row, int t) {
    if constexpr (!k8Bit) return 1.0f;
    std::uint32_t most = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const uint2 pairs = query_pairs(row, s, t);
      most = ptx::max_abs_bf16x2(most, ptx::max_abs_bf16x2(pairs.x, pairs.y));
    }
    std::uint32_t largest = max(most << 16 & 0x7FFFFFFFu, most & 0x7FFF0000u);
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, mask));
    return bits_float(min(max(largest >> 23, 1u), 253u) << 23);
  }

  static __device__ __forceinline__ float query_inverse(float power) {
    return bits_float((254u << 23) - float_bits(power));
  }
  /// A pair as operand: 8-bit types.
  static __device__ __forceinline__ std::uint32_t query_operand(std::uint32_t pair, float inverse) {
    return ptx::cvt_f16x2(bits_float(pair << 16) * inverse, bits_float(pair & 0xFFFF0000u) * inverse);
  }

  /// Where a lane's row lies of four matrices, which begin at an even chunk of 16 bytes, from the first of 16 tokens
  /// on. Matrices 1 and 3 are the next chunk, 2 and 3 the next eight tokens (`tokens_last`), or the other way round.
  static __device__ __forceinline__ std::uint32_t lane_offset(int lane, bool tokens_last) {
    const int row = lane % 8, odd = lane / 8 & 1, upper = lane / 16;
    const int token = row + 8 * (tokens_last ? upper : odd), chunk = tokens_last ? odd : upper;
    return static_cast<std::uint32_t>(token * kRowBytes + ((chunk ^ (row * kRowBytes / 128 & (kRowChunks - 1))) << 4));
  }
  /// That row of the matrices at a chunk.
  static __device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t tokens, std::uint32_t lane_offset,
                                                                int chunk) {
    return tokens + chunk / kRowChunks * kLayout.plane_bytes() + (lane_offset ^ (chunk % kRowChunks << 4));
  }

  /// Four codes to two pairs of f16.
  static __device__ __forceinline__ void decode(std::uint32_t codes, std::uint32_t& b0, std::uint32_t& b1) {
    if constexpr (kType == Elem::e4m3) {
      b0 = ptx::cvt_f16x2_e4m3x2(static_cast<std::uint16_t>(codes));
      b1 = ptx::cvt_f16x2_e4m3x2(static_cast<std::uint16_t>(codes >> 16));
    } else {  // 1024 + 128 + code, less 1152
      const std::uint32_t shifted = codes ^ 0x80808080u;
      b0 = ptx::sub_f16x2(ptx::pick_bytes(shifted, 0x64646464u, 0x4140), 0x64806480u);
      b1 = ptx::sub_f16x2(ptx::pick_bytes(shifted, 0x64646464u, 0x4342), 0x64806480u);
    }
  }

  /// Two weights as an operand.
  static __device__ __forceinline__ std::uint32_t pack_weights(float low, float high) {
    return k8Bit ? ptx::cvt_f16x2(low, high) : ptx::cvt_bf16x2(low, high);
  }
};

}  // namespace lowp::kernels::cuda
