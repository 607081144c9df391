// The two products of attention on a warp's tensor cores: 16 query rows with 16 tokens of a page in shared memory.
//
// bf16 is multiplied as it is. Codes of 8 bits become f16, which holds them exactly, and so do the queries, after a
// power of two has brought the largest of a row between 1 and 2; weights are multiplied by the values' scales over a
// power of two (ValuePower). Lane (g, t) = (lane / 4, lane % 4) has rows g and g + 8 of the tile.
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

  /// Bytes of a tile of query rows in shared memory: for each 16 values of the head the A operand, 16 bytes a lane.
  /// With 8 bits the values of a step are taken in the order in which ldmatrix deals codes: lane t has 4t .. 4t + 3.
  static constexpr int kQueryBytes = kSteps * 512;

  // The pairs of a row that this lane has of a step; zeros where there is no row.
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

  /// Puts steps first_step, first_step + stride, ... of rows g and g + 8 at `to`; rows as in query_pairs().
  static __device__ __forceinline__ void stage_queries(const std::uint16_t* const (&rows)[2], const float (&power)[2],
                                                       int lane, std::uint32_t to, int first_step, int stride) {
    const auto operand = [](std::uint32_t pair, float down) {
      if constexpr (!k8Bit) return pair;
      return ptx::cvt_f16x2(bits_float(pair << 16) * down, bits_float(pair & 0xFFFF0000u) * down);
    };
    const float down[2] = {bits_float((254u << 23) - float_bits(power[0])),
                           bits_float((254u << 23) - float_bits(power[1]))};
    for (int s = first_step; s < kSteps; s += stride) {
      const uint2 a = query_pairs(rows[0], s, lane & 3), b = query_pairs(rows[1], s, lane & 3);
      ptx::store_shared(to + s * 512 + lane * 16, uint4{operand(a.x, down[0]), operand(b.x, down[1]),
                                                        operand(a.y, down[0]), operand(b.y, down[1])});
    }
  }
  static __device__ __forceinline__ void load_queries(std::uint32_t from, int step, int lane, std::uint32_t (&a)[4]) {
    const uint4 v = ptx::load_shared_16(from + step * 512 + lane * 16);
    a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
  }

  // Where a lane's row of the matrices that begin at an even chunk lies, from the first of 16 tokens on. Matrices 1 and
  // 3 of keys are the next chunk, 2 and 3 the next eight tokens; of values it is the other way round.
  static __device__ __forceinline__ std::uint32_t lane_offset(int lane, bool keys) {
    const int row = lane % 8, odd = lane / 8 & 1, upper = lane / 16;
    const int token = row + 8 * (keys ? upper : odd), chunk = keys ? odd : upper;
    return static_cast<std::uint32_t>(token * kRowBytes + ((chunk ^ (row * kRowBytes / 128 & (kRowChunks - 1))) << 4));
  }
  static __device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t tokens, std::uint32_t lane_offset,
                                                                int chunk) {
    return tokens + chunk / kRowChunks * kLayout.plane_bytes() + (lane_offset ^ (chunk % kRowChunks << 4));
  }

  // Four codes of a key to the operands of a step.
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

  /// s[j] = the staged rows times tokens 8j .. 8j + 7 of kTiles / 2 times 16: element i of lane (g, t) is row
  /// g + 8 (i / 2), token 8j + 2t + i % 2. `tokens`: address of the first token's key.
  template <int kTiles>
  static __device__ __forceinline__ void scores(std::uint32_t queries, std::uint32_t tokens, int lane,
                                                float (&s)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (float& v : s[j]) v = 0;
    const std::uint32_t own = lane_offset(lane, true);
    // Operands are loaded some chunks at a time: what a product needs has long arrived, as far as registers allow.
    constexpr int kStepsAChunk = k8Bit ? 2 : 1, kChunks = kSteps / kStepsAChunk, kMost = kDim == 256 ? 1 : 8 / kTiles,
                  kBatch = kMost < kChunks ? kMost : kChunks;
#pragma unroll
    for (int first = 0; first < kChunks; first += kBatch) {
      std::uint32_t q[kBatch * kStepsAChunk][4], b[kBatch][kTiles / 2][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
#pragma unroll
        for (int j = 0; j < kTiles / 2; ++j)
          ptx::load_matrices(b[c][j], chunk_address(tokens + 16 * j * kRowBytes, own, 2 * (first + c)));
#pragma unroll
        for (int next = 0; next < kStepsAChunk; ++next)
          load_queries(queries, (first + c) * kStepsAChunk + next, lane, q[c * kStepsAChunk + next]);
      }
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const std::uint32_t(&keys)[4] = b[c][j / 2];
          if constexpr (!k8Bit) {
            ptx::mma_bf16(s[j], q[c], keys[2 * (j % 2)], keys[2 * (j % 2) + 1]);
          } else {
#pragma unroll
            for (int next = 0; next < 2; ++next) {
              std::uint32_t b0, b1;
              decode(keys[2 * (j % 2) + next], b0, b1);
              ptx::mma_f16(s[j], q[2 * c + next], b0, b1);
            }
          }
        }
    }
  }

  /// Weights of 16 tokens as the A operand.
  static __device__ __forceinline__ std::uint32_t pack_weights(float low, float high) {
    return k8Bit ? ptx::cvt_f16x2(low, high) : ptx::cvt_bf16x2(low, high);
  }

  /// What rows have gathered of the values; each_pair() says which lane has what.
  using Mixed = float[kDim / 8][4];

  /// mixed += weights times values. `keep`: masks of the lane's tokens 2t, 2t + 1 and 8 + 2t, 9 + 2t, whose other
  /// values count as zeros whatever they are.
  static __device__ __forceinline__ void mix(const std::uint32_t (&weights)[4], std::uint32_t tokens, int lane,
                                             const std::uint32_t (&keep)[2], Mixed& mixed) {
    const std::uint32_t own = lane_offset(lane, false);
    constexpr int kLoads = kDim * (k8Bit ? 1 : 2) / 32, kBatch = kDim == 256 ? 1 : k8Bit ? 2 : 4;
#pragma unroll
    for (int first = 0; first < kLoads; first += kBatch) {
      std::uint32_t b[kBatch][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c) ptx::load_matrices_transposed(b[c], chunk_address(tokens, own, 2 * (first + c)));
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          const int chunk = 2 * (first + c) + next;
          const std::uint32_t low = b[c][2 * next] & keep[0], high = b[c][2 * next + 1] & keep[1];
          if constexpr (!k8Bit) {
            ptx::mma_bf16(mixed[chunk], weights, low, high);
          } else {
            // A transposed pair is two neighbouring codes of a token: even and odd values of the head are two operands.
            std::uint32_t even[2], odd[2];
            decode(ptx::pick_bytes(low, 0, 0x3120), even[0], odd[0]);
            decode(ptx::pick_bytes(high, 0, 0x3120), even[1], odd[1]);
            ptx::mma_f16(mixed[2 * chunk], weights, even[0], even[1]);
            ptx::mma_f16(mixed[2 * chunk + 1], weights, odd[0], odd[1]);
          }
        }
    }
  }

  /// body(i, a, b): values i and i + 1 of row g + 8 * half, of all that the lane has.
  template <typename Body>
  static __device__ __forceinline__ void each_pair(const Mixed& mixed, int half, int t, const Body& body) {
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      if constexpr (!k8Bit) {
        body(8 * j + 2 * t, mixed[j][2 * half], mixed[j][2 * half + 1]);
      } else {
        const int even = j / 2 * 2, i = j % 2;
        body(16 * (j / 2) + 4 * t + 2 * i, mixed[even][2 * half + i], mixed[even + 1][2 * half + i]);
      }
    }
  }
};

}  // namespace lowp::kernels::cuda
