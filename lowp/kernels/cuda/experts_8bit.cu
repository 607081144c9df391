#include "lowp/kernels/cuda/experts_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const ExpertsKernels> experts_kernels_8bit() {
  static constexpr ExpertsKernels kRows[] = {
      experts_kernels<Codes::e4m3, Scales::none>(),
      experts_kernels<Codes::e4m3, Scales::exponent32>(),
      experts_kernels<Codes::s8, Scales::none>(),
      experts_kernels<Codes::s8, Scales::bf16_32>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
