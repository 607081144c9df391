#include "lowp/kernels/cpu/cast.h"

namespace lowp::kernels::cpu {

const CastKernels* cast_kernels([[maybe_unused]] Isa level) {
#ifdef LOWP_X86
  if (level >= Isa::avx512) return &kCastAvx512;
  if (level >= Isa::avx2) return &kCastAvx2;
#endif
  return nullptr;
}

}  // namespace lowp::kernels::cpu
