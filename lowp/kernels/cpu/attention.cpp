#include "lowp/kernels/cpu/attention.h"

namespace lowp::kernels::cpu {

const AttentionKernel& attention_kernel([[maybe_unused]] Isa isa, [[maybe_unused]] bool bf16) {
#ifdef LOWP_X86
  if (bf16 && isa >= Isa::amx) return kAttentionAmx;
  if (bf16 && isa >= Isa::avx512_bf16) return kAttentionAvx512Bf16;
  if (isa >= Isa::avx512) return kAttentionAvx512;
  if (isa >= Isa::avx2) return kAttentionAvx2;
#endif
  return kAttentionPortable;
}

}  // namespace lowp::kernels::cpu
