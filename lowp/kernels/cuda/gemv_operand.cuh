// What gemv multiplies of a packed weight: as few instructions as there are between a code and the tensor cores.
//
// Floating-point codes are multiplied as the bits they are, 2^-120 (e4m3) or 2^-126 (e2m1) times their value, with
// activations that are staged 2^64 too large: sums are normal numbers while |x| is below 2^64. Scales of groups
// multiply the sums of these, which are short chains of the tensor cores' additions beside each other. Integers are
// multiplied by their scale and rounded first.
#pragma once

#include "lowp/kernels/cuda/attention_ptx.cuh"
#include "lowp/kernels/cuda/gemv_unit.cuh"

namespace lowp::kernels::cuda {

template <Codes C, Scales S>
struct GemvOperand {
  using Decode = Decoder<C, S>;
  static constexpr bool kQuads = false;  // a lane has pairs of K, 8 apart
  static constexpr bool kBits = C == Codes::e4m3 || C == Codes::e2m1;
  static constexpr int kSteps = Decode::kSteps;                                        // fragments of a chunk
  static constexpr int kGroup = kBits && S != Scales::none ? scale_group(S) / 16 : 0;  // steps whose sum is scaled
  static constexpr float kBack = !kBits ? 1.0f : kGroup ? 0x1p-64f : 0x1p56f;          // to sums of values

  /// x as it is staged.
  static __device__ __forceinline__ std::uint32_t staged(std::uint32_t pair) {
    return kBits ? ptx::mul_bf16x2(pair, 0x5F805F80u) : pair;
  }
  static __device__ __forceinline__ void fragments(const uint4& q, const uint2& scales, std::uint32_t (&a)[kSteps][4]) {
    Decode::template fragments<!kBits>(q, scales, a);
  }
  /// What multiplies the sums of row g (row = 0) or g + 8 (row = 1) for the group that begins with a step.
  static __device__ __forceinline__ float group_scale(const uint2& scales, int row, int step) {
    const int slot = row * Decode::kSlots + step / kGroup % Decode::kSlots;
    const std::uint32_t byte = (slot < 4 ? scales.x : scales.y) >> (8 * (slot % 4)) & 0xFF;
    // Of nvfp4 2^94 times the scale; row_scale holds the 2^32 that is missing.
    return __uint_as_float(S == Scales::exponent32 ? byte << 23 : (byte << 20) + 0x67000000u);
  }
  static __device__ __forceinline__ void multiply(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
    ptx::mma_bf16(sums, a, b0, b1);
  }
};

/// E2M1 times its power of two is a number of f16 whose lower byte is zero: the upper one is looked up, and meets the
/// e4m3 activations as f16. Exact.
template <>
struct GemvOperand<Codes::e2m1_folded, Scales::step32> {
  static constexpr bool kQuads = true;  // a lane has fours of K, 16 apart
  static constexpr int kSteps = 4, kGroup = 0;
  static constexpr float kBack = 1;

  static __device__ __forceinline__ std::uint32_t staged(std::uint32_t pair) { return pair; }
  static __device__ __forceinline__ void fragments(const uint4& q, const uint2& scales, std::uint32_t (&a)[kSteps][4]) {
    const std::uint32_t words[2][2] = {{q.x, q.y}, {q.z, q.w}};
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const std::uint32_t power = scales.x >> (8 * row + 4 * half) & 15, w = words[half][row],
                            magnitudes = w & 0x77777777u, low = 0x2A282400u + power * 0x04040400u,
                            high = 0x32302E2Cu + power * 0x04040404u;
        const std::uint32_t bytes[2] = {ptx::pick_bytes(low, high, magnitudes) | (w & 0x80808080u),
                                        ptx::pick_bytes(low, high, magnitudes >> 16) | ((w << 4) & 0x80808080u)};
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          a[2 * half + step][row] = ptx::pick_bytes(bytes[step], 0, 0x1404);
          a[2 * half + step][2 + row] = ptx::pick_bytes(bytes[step], 0, 0x3424);
        }
      }
  }
  static __device__ __forceinline__ void multiply(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
    ptx::mma_f16(sums, a, b0, b1);
  }
};

template <Codes C, Scales S>
struct GemvUnit : UnitRegisters<C, S> {
  using Operand = GemvOperand<C, S>;
  using UnitRegisters<C, S>::codes, UnitRegisters<C, S>::scales;

  /// sums += unit times x, which points at this lane's first values for the unit. Of one row only sums[0] and sums[2],
  /// as all columns are that row.
  template <bool kOneRow>
  __device__ __forceinline__ void multiply(const std::uint32_t* x, float (&sums)[4]) const {
    constexpr int kSteps = Operand::kSteps, kGroup = Operand::kGroup, kApart = kOneRow ? 2 : 1,
                  kChains = kGroup ? 1 : 2;  // sums of the tensor cores that do not wait for each other
    const auto* at = reinterpret_cast<const uint4*>(x);
    uint4 b[2] = {at[0], at[4]};  // of a pair of steps, and of the next
    float parts[kChains][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t a[kSteps][4];
      Operand::fragments(codes[c], scales[c], a);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int now = c * kSteps + step, pair = now / 2;
        Operand::multiply(parts[now % kChains], a[step], now % 2 ? b[pair % 2].z : b[pair % 2].x,
                          now % 2 ? b[pair % 2].w : b[pair % 2].y);
        if (now % 2 && pair + 2 < kChunks * kSteps / 2) b[pair % 2] = at[4 * (pair + 2)];
        if constexpr (kGroup) {
          if ((now + 1) % kGroup) continue;
#pragma unroll
          for (int i = 0; i < 4; i += kApart) {
            sums[i] = __fmaf_rn(parts[0][i], Operand::group_scale(scales[c], i / 2, step / kGroup * kGroup), sums[i]);
          }
#pragma unroll
          for (float& v : parts[0]) v = 0;
        }
      }
    }
    if constexpr (!kGroup) {
#pragma unroll
      for (int i = 0; i < 4; i += kApart) sums[i] += parts[0][i] + parts[1][i];
    }
  }
};

}  // namespace lowp::kernels::cuda
