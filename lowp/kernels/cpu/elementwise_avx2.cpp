#define LOWP_ISA avx2
#include "lowp/kernels/cpu/elementwise_body.h"

namespace lowp::kernels::cpu {

const ElementwiseKernels kElementwiseAvx2 = {"avx2",         avx2::rms_norm,     avx2::rotate,
                                             avx2::silu_mul, avx2::gelu_mul,     avx2::clamped_mul,
                                             avx2::add,      avx2::block_maxima, avx2::block_exp_sums};

}  // namespace lowp::kernels::cpu
