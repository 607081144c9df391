#define LOWP_ISA portable
#define LOWP_LANES 8
#include "lowp/kernels/cpu/attention_body.h"

namespace lowp::kernels::cpu {

const AttentionKernel kAttentionPortable = {.name = "portable",
                                            .bf16 = false,
                                            .scores = portable::scores,
                                            .softmax = portable::softmax<float>,
                                            .mix = portable::mix,
                                            .from_int8 = portable::from_int8,
                                            .from_bf16 = portable::from_bf16};

}  // namespace lowp::kernels::cpu
