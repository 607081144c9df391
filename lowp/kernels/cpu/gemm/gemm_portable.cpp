#define LOWP_ISA portable
#include "lowp/kernels/cpu/gemm/simd_portable.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/gemm_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {

const GemmKernels kGemmPortable = {"portable", Arithmetic::f32, false, portable::panels, portable::quantize_rows};

}  // namespace lowp::kernels::cpu
