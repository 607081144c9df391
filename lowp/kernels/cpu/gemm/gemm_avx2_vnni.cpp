#define LOWP_ISA avx2_vnni
#include "lowp/kernels/cpu/gemm/simd_avx2.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/gemm_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmAvx2Vnni = {"avx2-vnni", Arithmetic::f32, false, avx2_vnni::panels, avx2_vnni::quantize_rows};

}  // namespace lowp::kernels::cpu
