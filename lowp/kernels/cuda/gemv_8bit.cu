#include "lowp/kernels/cuda/gemv_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const GemvKernels> gemv_kernels_8bit() {
  static constexpr GemvKernels kRows[] = {
      gemv_kernels<Codes::e4m3, Scales::none>(),
      gemv_kernels<Codes::e4m3, Scales::exponent32>(),
      gemv_kernels<Codes::s8, Scales::none>(),
      gemv_kernels<Codes::s8, Scales::bf16_32>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
