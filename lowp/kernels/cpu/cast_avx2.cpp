// Compiled for AVX2, FMA and F16C. Contraction stays off: casts are exact.
#include "lowp/kernels/cpu/cast.h"
#include "lowp/kernels/cpu/cast_body.h"

namespace lowp::kernels::cpu {

const CastKernels kCastAvx2 = {"avx2", avx2::stats, avx2::quantize, avx2::dequantize, avx2::errors};

}  // namespace lowp::kernels::cpu
