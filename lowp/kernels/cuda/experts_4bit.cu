#include "lowp/kernels/cuda/experts_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const ExpertsKernels> experts_kernels_4bit() {
  static constexpr ExpertsKernels kRows[] = {
      experts_kernels<Codes::e2m1, Scales::exponent32>(),    experts_kernels<Codes::e2m1, Scales::float16>(),
      experts_kernels<Codes::e2m1_folded, Scales::step32>(), experts_kernels<Codes::u4, Scales::bf16_32>(),
      experts_kernels<Codes::u4, Scales::bf16_128>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
