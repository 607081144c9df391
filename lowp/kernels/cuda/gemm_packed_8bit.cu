#include "lowp/kernels/cuda/gemm_packed_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const PackedKernels> packed_kernels_8bit() {
  static constexpr PackedKernels kRows[] = {
      packed_kernels<Codes::e4m3, Scales::none>(),
      packed_kernels<Codes::e4m3, Scales::exponent32>(),
      packed_kernels<Codes::s8, Scales::none>(),
      packed_kernels<Codes::s8, Scales::bf16_32>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
