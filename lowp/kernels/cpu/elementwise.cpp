#include "lowp/kernels/cpu/elementwise.h"

#include "lowp/kernels/cpu/isa.h"

namespace lowp::kernels::cpu {

const ElementwiseKernels& elementwise_kernels() {
  static const ElementwiseKernels* const chosen = [] {
#ifdef LOWP_X86
    if (isa() >= Isa::avx512) return &kElementwiseAvx512;
    if (isa() >= Isa::avx2) return &kElementwiseAvx2;
#endif
    return &kElementwisePortable;
  }();
  return *chosen;
}

}  // namespace lowp::kernels::cpu
