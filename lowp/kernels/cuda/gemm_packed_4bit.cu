#include "lowp/kernels/cuda/gemm_packed_launch.cuh"

namespace lowp::kernels::cuda {

std::span<const PackedKernels> packed_kernels_4bit() {
  static constexpr PackedKernels kRows[] = {
      packed_kernels<Codes::e2m1, Scales::exponent32>(),    packed_kernels<Codes::e2m1, Scales::float16>(),
      packed_kernels<Codes::e2m1_folded, Scales::step32>(), packed_kernels<Codes::u4, Scales::bf16_32>(),
      packed_kernels<Codes::u4, Scales::bf16_128>(),
  };
  return kRows;
}

}  // namespace lowp::kernels::cuda
