#include "lowp/kernels/cuda/experts_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const ExpertsKernels> experts_kernels_16bit() {
  static constexpr ExpertsKernels kRows[] = {
      experts_kernels<Codes::bf16, Scales::none>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
