#include "lowp/kernels/cuda/gemm_packed_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const PackedKernels> packed_kernels_16bit() {
  static constexpr PackedKernels kRows[] = {
      packed_kernels<Codes::bf16, Scales::none>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
