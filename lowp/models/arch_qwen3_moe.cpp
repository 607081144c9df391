// Qwen3-MoE: Qwen3 with experts in the layers that decoder_sparse_step and mlp_only_layers leave sparse.
#include "lowp/base/error.h"
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kQwen3Moe = {"Qwen3MoeForCausalLM", [](const Json& json, const std::string& where, Config& config) {
                                  config.head_norms = true;
                                  config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", false);
                                  config.norm_topk_prob = flag_or(json, where, "norm_topk_prob", false);
                                  config.experts_per_token = count_or(json, where, "num_experts_per_tok", 8);
                                  if (config.experts_per_token > config.num_experts)
                                    fail(ErrorCode::bad_input,
                                         "{}: num_experts_per_tok: expected 1 to num_experts = {}, found {}", where,
                                         config.num_experts, config.experts_per_token);
                                }};

}  // namespace lowp::models
