#define LOWP_ISA avx512
#include "lowp/kernels/cpu/gemm/simd_avx512.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/gemm_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmAvx512 = {"avx512", Arithmetic::f32, false, avx512::panels, avx512::quantize_rows};

}  // namespace lowp::kernels::cpu
