// A unit of a packed weight in a warp's registers, and its product with staged activations.
#pragma once

#include "lowp/kernels/cuda/gemm_decode.cuh"

namespace lowp::kernels::cuda {

/// Blocks whose registers should fit a multiprocessor: nibbles with a bf16 scale for 32 need more than 64 a thread.
template <Codes C, Scales S>
inline constexpr int kGemvBlocks = C == Codes::u4&& S == Scales::bf16_32 ? 1 : 2;

template <Codes C, Scales S>
struct UnitRegisters {
  uint4 codes[kChunks];
  uint2 scales[kChunks];

  __device__ __forceinline__ void load(std::uint32_t from, int lane) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      codes[c] = ptx::load_shared_16(from + c * kChunkBytes + 16 * lane);
      scales[c] = Decoder<C, S>::load_scales(from, c, lane);
    }
  }
};

/// For experts_gemv.cuh; gemv_operand.cuh has the one of gemv.
template <Codes C, Scales S>
struct Unit : UnitRegisters<C, S> {
  using UnitRegisters<C, S>::codes, UnitRegisters<C, S>::scales;

  /// sums += unit times x, which points at this lane's first values for the unit.
  __device__ __forceinline__ void multiply(const std::uint32_t* x, float (&sums)[4]) const {
    constexpr int kSteps = Decoder<C, S>::kSteps;
    uint4 b{};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t a[kSteps][4];
      Decoder<C, S>::fragments(codes[c], scales[c], a);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int at = c * kSteps + step;
        if (at % 2 == 0) b = *reinterpret_cast<const uint4*>(x + at / 2 * 16);
        if (at % 2 == 0)
          ptx::mma_bf16(sums, a[step], b.x, b.y);
        else
          ptx::mma_bf16(sums, a[step], b.z, b.w);
      }
    }
  }
};

}  // namespace lowp::kernels::cuda
