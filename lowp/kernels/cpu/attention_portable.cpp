#define LOWP_ISA portable
#define LOWP_LANES 8
#include "lowp/kernels/cpu/attention_body.h"

namespace lowp::kernels::cpu {

const AttentionKernel kAttentionPortable = {.name = "portable",
                                            .bf16 = false,
                                            .scores = portable::scores,
                                            .softmax = portable::softmax<float>,
                                            .softmax_e4m3 = portable::softmax_e4m3<float>,
                                            .mix = portable::mix,
                                            .to_e4m3 = portable::to_e4m3<float>,
                                            .from_int8 = portable::from_int8,
                                            .from_e4m3 = portable::from_e4m3<std::uint32_t>,
                                            .from_bf16 = portable::from_bf16};

}  // namespace lowp::kernels::cpu
