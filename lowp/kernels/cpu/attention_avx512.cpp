#define LOWP_ISA avx512
#define LOWP_LANES 16
#include "lowp/kernels/cpu/attention_body.h"

namespace lowp::kernels::cpu {

const AttentionKernel kAttentionAvx512 = {.name = "avx512",
                                          .bf16 = false,
                                          .scores = avx512::scores,
                                          .softmax = avx512::softmax<float>,
                                          .softmax_e4m3 = avx512::softmax_e4m3<float>,
                                          .mix = avx512::mix,
                                          .to_e4m3 = avx512::to_e4m3<float>,
                                          .from_int8 = avx512::from_int8,
                                          .from_e4m3 = avx512::from_e4m3<std::uint32_t>,
                                          .from_bf16 = avx512::from_bf16};

}  // namespace lowp::kernels::cpu
