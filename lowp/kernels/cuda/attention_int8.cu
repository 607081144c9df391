#include "lowp/kernels/cuda/attention_launch.cuh"

namespace lowp::kernels::cuda {

constexpr AttentionKernels kAttentionInt8[3] = {attention_kernels<Operands<Elem::int8, 64>>(),
                                                attention_kernels<Operands<Elem::int8, 128>>(),
                                                attention_kernels<Operands<Elem::int8, 256>>()};

}  // namespace lowp::kernels::cuda
