#define LOWP_ISA avx512
#include "lowp/kernels/cpu/elementwise_body.h"

namespace lowp::kernels::cpu {

const ElementwiseKernels kElementwiseAvx512 = {"avx512",         avx512::rms_norm,     avx512::rotate,
                                               avx512::silu_mul, avx512::gelu_mul,     avx512::clamped_mul,
                                               avx512::add,      avx512::block_maxima, avx512::block_exp_sums};

}  // namespace lowp::kernels::cpu
