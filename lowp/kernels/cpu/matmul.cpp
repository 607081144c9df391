#include "lowp/kernels/cpu/matmul.h"

namespace lowp::kernels::cpu {

MatmulKernel matmul_kernel() {
#ifdef LOWP_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return matmul_avx2;
#endif
  return matmul_portable;
}

}  // namespace lowp::kernels::cpu
