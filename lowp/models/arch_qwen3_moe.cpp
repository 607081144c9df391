// Qwen3-MoE: Qwen3 with experts in the layers that decoder_sparse_step and mlp_only_layers leave sparse.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kQwen3Moe = {"Qwen3MoeForCausalLM", [](const Json& json, const std::string& where, Config& config) {
                                  config.head_norms = true;
                                  config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", false);
                                  config.norm_topk_prob = flag_or(json, where, "norm_topk_prob", false);
                                  read_experts_per_token(json, where, 8, config);
                                }};

}  // namespace lowp::models
