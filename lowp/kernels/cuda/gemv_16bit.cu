#include "lowp/kernels/cuda/gemv_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const GemvKernels> gemv_kernels_16bit() {
  static constexpr GemvKernels kRows[] = {
      gemv_kernels<Codes::bf16, Scales::none>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
