// Words of device memory that other blocks write meanwhile: each is there or not yet, in no order. Device code only.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

__device__ __forceinline__ std::uint32_t load_relaxed(const std::uint32_t* from) {
  std::uint32_t out;
  asm volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(out) : "l"(from) : "memory");
  return out;
}
__device__ __forceinline__ uint4 load_relaxed_16(const uint4* from) {
  uint4 out;
  asm volatile("ld.relaxed.gpu.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "l"(from)
               : "memory");
  return out;
}
__device__ __forceinline__ void store_relaxed(std::uint32_t* to, std::uint32_t value) {
  asm volatile("st.relaxed.gpu.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

}  // namespace lowp::kernels::cuda::ptx
