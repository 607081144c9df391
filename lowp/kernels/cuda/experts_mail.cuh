// How the blocks of one kernel hand each other numbers of bf16 without a barrier: a word of device memory has a pattern
// that no rounding gives until it is written, and who wants it reads it again until it is there. The way of a number
// from block to block is then one write and one read.
//
// A kernel has one half of the mail, by turns, and empties the other, which the launch before used, for the one behind.
#pragma once

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/mail_ptx.cuh"

namespace lowp::kernels::cuda {

class ExpertsMailHalf {
 public:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;  // roundings give 0x7FFF for NaN

  /// By one thread of each block, once, when the launch before has ended: which half is this launch's.
  static __device__ __forceinline__ int take_turn(const ExpertsMail& mail) {
    auto* turns = static_cast<unsigned long long*>(mail.memory);
    return static_cast<int>(atomicAdd(turns, 1ull) / gridDim.x & 1);
  }

  __device__ __forceinline__ ExpertsMailHalf(const ExpertsMail& mail, int half)
      : mail_(mail), own_(static_cast<std::uint8_t*>(mail.memory) + ExpertsMail::kTurns + half * mail.half_bytes) {}

  __device__ __forceinline__ std::uint32_t* scores() const { return reinterpret_cast<std::uint32_t*>(own_); }
  __device__ __forceinline__ std::uint32_t* gated() const {
    return reinterpret_cast<std::uint32_t*>(own_ + mail_.score_bytes);
  }

  /// This block's part of the other half.
  __device__ __forceinline__ void empty_other(int half, int thread, unsigned threads) const {
    const unsigned chunks = static_cast<unsigned>(mail_.half_bytes / 16), end = chunks * (blockIdx.x + 1) / gridDim.x;
    auto* other = reinterpret_cast<uint4*>(own_ + (half ? -mail_.half_bytes : mail_.half_bytes));
    for (unsigned i = chunks * blockIdx.x / gridDim.x + static_cast<unsigned>(thread); i < end; i += threads)
      other[i] = uint4{kEmpty, kEmpty, kEmpty, kEmpty};
  }

  static __device__ __forceinline__ bool is_there(const uint4& v) {
    return v.x != kEmpty && v.y != kEmpty && v.z != kEmpty && v.w != kEmpty;
  }

 private:
  const ExpertsMail& mail_;
  std::uint8_t* const own_;
};

}  // namespace lowp::kernels::cuda
