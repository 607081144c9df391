#include "lowp/kernels/cpu/matmul.h"

namespace lowp::kernels::cpu {

const MatmulKernels& matmul_kernels() {
#ifdef LOWP_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kMatmulAvx2;
#endif
  return kMatmulPortable;
}

}  // namespace lowp::kernels::cpu
