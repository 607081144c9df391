#define LOWP_ISA portable
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/kernels/cpu/matmul_body.h"

namespace lowp::kernels::cpu {

const MatmulKernels kMatmulPortable = {"portable", portable::matmul};

}  // namespace lowp::kernels::cpu
