#include "lowp/kernels/cuda/attention_launch.cuh"

namespace lowp::kernels::cuda {

constexpr AttentionKernels kAttentionBf16[3] = {attention_kernels<Operands<Elem::bf16, 64>>(),
                                                attention_kernels<Operands<Elem::bf16, 128>>(),
                                                attention_kernels<Operands<Elem::bf16, 256>>()};

}  // namespace lowp::kernels::cuda
