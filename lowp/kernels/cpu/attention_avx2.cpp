#define LOWP_ISA avx2
#define LOWP_LANES 8
#include "lowp/kernels/cpu/attention_body.h"

namespace lowp::kernels::cpu {

const AttentionKernel kAttentionAvx2 = {.name = "avx2",
                                        .bf16 = false,
                                        .scores = avx2::scores,
                                        .softmax = avx2::softmax<float>,
                                        .softmax_e4m3 = avx2::softmax_e4m3<float>,
                                        .mix = avx2::mix,
                                        .to_e4m3 = avx2::to_e4m3<float>,
                                        .from_int8 = avx2::from_int8,
                                        .from_e4m3 = avx2::from_e4m3<std::uint32_t>,
                                        .from_bf16 = avx2::from_bf16};

}  // namespace lowp::kernels::cpu
