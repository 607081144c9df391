#define LOWP_ISA portable
#include "lowp/kernels/cpu/elementwise_body.h"

namespace lowp::kernels::cpu {

const ElementwiseKernels kElementwisePortable = {"portable",         portable::rms_norm,     portable::rotate,
                                                 portable::silu_mul, portable::gelu_mul,     portable::clamped_mul,
                                                 portable::add,      portable::block_maxima, portable::block_exp_sums};

}  // namespace lowp::kernels::cpu
