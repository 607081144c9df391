// Compiled with AVX2 and FMA, contraction allowed: a multiply-add rounds once.
#define LOWP_ISA avx2
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/kernels/cpu/matmul_body.h"

namespace lowp::kernels::cpu {

const MatmulKernels kMatmulAvx2 = {"avx2", avx2::matmul};

}  // namespace lowp::kernels::cpu
