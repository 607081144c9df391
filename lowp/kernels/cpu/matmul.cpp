#include "lowp/kernels/cpu/matmul.h"

#include "lowp/kernels/cpu/isa.h"

namespace lowp::kernels::cpu {

const MatmulKernels& matmul_kernels() {
#ifdef LOWP_HAVE_AVX2
  if (isa() != Isa::portable) return kMatmulAvx2;
#endif
  return kMatmulPortable;
}

}  // namespace lowp::kernels::cpu
