#define LOWP_ISA avx2
#include "lowp/kernels/cpu/gemm/simd_avx2.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/gemm_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmAvx2 = {"avx2", Arithmetic::f32, false, avx2::panels, avx2::quantize_rows};

}  // namespace lowp::kernels::cpu
