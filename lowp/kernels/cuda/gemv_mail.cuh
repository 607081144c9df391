// How blocks of one kernel hand each other vectors of bf16 without a barrier: a word of device memory, two values, has
// a pattern that no rounding gives until it is written, and who wants it reads it again until it is there. The way from
// block to block is one write and one read.
//
// The memory is a counter of the blocks of all launches and two halves. A launch has one half, by turns, and empties
// the other for the launch behind it; it is 0xFF and the counter 0 before the first. All blocks of a launch must run at
// the same time, and a launch wait for the one before.
#pragma once

#include "lowp/kernels/cuda/gemm_packed_product.h"
#include "lowp/kernels/cuda/gemv_ptx.cuh"
#include "lowp/kernels/cuda/layers.cuh"

namespace lowp::kernels::cuda {

class GemvMail {
 public:
  /// Which half is this launch's, when the launch before has ended.
  static __device__ __forceinline__ int turn(const ProductMail& mail) {
    return static_cast<int>(ptx::load_relaxed_64(static_cast<std::uint64_t*>(mail.memory)) / gridDim.x & 1);
  }
  __device__ __forceinline__ GemvMail(const ProductMail& mail, int half) : mail_(mail), half_(half) {}

  /// Words of this launch from a word on.
  __device__ __forceinline__ std::uint32_t* at(int word) const { return half(half_) + word; }

  static __device__ __forceinline__ Bf16x8 read(const std::uint32_t* from) {
    const uint4 v = ptx::load_relaxed(from);
    return {{v.x, v.y, v.z, v.w}};
  }
  static __device__ __forceinline__ bool is_there(const Bf16x8& v) {
    return v.word[0] != kEmpty && v.word[1] != kEmpty && v.word[2] != kEmpty && v.word[3] != kEmpty;
  }
  static __device__ __forceinline__ void write(std::uint32_t* to, const Bf16x8& v) {
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::store_relaxed(to + i, v.word[i]);
  }

  /// This block's part of the other half; by `threads` threads.
  __device__ __forceinline__ void empty_other(int thread, int threads) const {
    const unsigned chunks = static_cast<unsigned>(mail_.values) / 8, end = chunks * (blockIdx.x + 1) / gridDim.x;
    auto* const other = reinterpret_cast<uint4*>(half(1 - half_));
    for (unsigned i = chunks * blockIdx.x / gridDim.x + static_cast<unsigned>(thread); i < end;
         i += static_cast<unsigned>(threads))
      other[i] = uint4{kEmpty, kEmpty, kEmpty, kEmpty};
  }
  /// By one thread of each block, all of whose threads have their turn.
  static __device__ __forceinline__ void end(const ProductMail& mail) {
    ptx::add_relaxed_64(static_cast<std::uint64_t*>(mail.memory), 1);
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;  // roundings give 0x7FFF for what is not a number

  __device__ __forceinline__ std::uint32_t* half(int index) const {
    return static_cast<std::uint32_t*>(mail_.memory) + ProductMail::kHeader / 4 + index * (mail_.values / 2);
  }

  const ProductMail& mail_;
  const int half_;
};

}  // namespace lowp::kernels::cuda
