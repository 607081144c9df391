// Instructions of gemv that other products do not use, one a function.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

/// Makes a barrier's memory free for another one.
__device__ __forceinline__ void barrier_end(std::uint32_t barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/// Device memory that other blocks read and write meanwhile: words are whole.
__device__ __forceinline__ uint4 load_relaxed(const void* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ void store_relaxed(std::uint32_t* to, std::uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}
__device__ __forceinline__ std::uint64_t load_relaxed_64(const std::uint64_t* from) {
  std::uint64_t v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ void add_relaxed_64(std::uint64_t* to, std::uint64_t what) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to), "l"(what) : "memory");
}

}  // namespace lowp::kernels::cuda::ptx
