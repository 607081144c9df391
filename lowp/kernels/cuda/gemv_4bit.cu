#include "lowp/kernels/cuda/gemv_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const GemvKernels> gemv_kernels_4bit() {
  static constexpr GemvKernels kRows[] = {
      gemv_kernels<Codes::e2m1, Scales::exponent32>(),    gemv_kernels<Codes::e2m1, Scales::float16>(),
      gemv_kernels<Codes::e2m1_folded, Scales::step32>(), gemv_kernels<Codes::u4, Scales::bf16_32>(),
      gemv_kernels<Codes::u4, Scales::bf16_128>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
