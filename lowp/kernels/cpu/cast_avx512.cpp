// Compiled for AVX-512 F, BW, VL and DQ. Contraction stays off: casts are exact.
#include "lowp/kernels/cpu/cast.h"
#include "lowp/kernels/cpu/cast_body.h"

namespace lowp::kernels::cpu {

const CastKernels kCastAvx512 = {"avx512", avx512::stats, avx512::quantize, avx512::dequantize, avx512::errors};

}  // namespace lowp::kernels::cpu
