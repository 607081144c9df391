#define LOWP_ISA amx
#define LOWP_HAS_BF16
#define LOWP_HAS_AMX
#include "lowp/kernels/cpu/gemm/simd_avx512.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/amx_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmAmx = {"amx", Arithmetic::bf16, amx::panels, amx::quantize_rows};

}  // namespace lowp::kernels::cpu
