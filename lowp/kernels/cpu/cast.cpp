#include "lowp/kernels/cpu/cast.h"

namespace lowp::kernels::cpu {

std::vector<const CastKernels*> cast_kernels() {
  std::vector<const CastKernels*> found;
#ifdef LOWP_HAVE_X86
  const auto has = [](auto... feature) { return (feature && ...); };
  if (has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"), __builtin_cpu_supports("avx512vl"),
          __builtin_cpu_supports("avx512dq")))
    found.push_back(&kCastAvx512);
  if (has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("f16c")))
    found.push_back(&kCastAvx2);
#endif
  return found;
}

}  // namespace lowp::kernels::cpu
