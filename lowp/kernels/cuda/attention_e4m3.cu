#include "lowp/kernels/cuda/attention_launch.cuh"

namespace lowp::kernels::cuda {

constexpr AttentionKernels kAttentionE4m3[3] = {attention_kernels<Operands<Elem::e4m3, 64>>(),
                                                attention_kernels<Operands<Elem::e4m3, 128>>(),
                                                attention_kernels<Operands<Elem::e4m3, 256>>()};

}  // namespace lowp::kernels::cuda
