#define LOWP_ISA avx512_bf16
#define LOWP_HAS_BF16
#include "lowp/kernels/cpu/gemm/simd_avx512.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/gemm_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmAvx512Bf16 = {"avx512-bf16", Arithmetic::bf16, false, avx512_bf16::panels,
                                     avx512_bf16::quantize_rows};

}  // namespace lowp::kernels::cpu
