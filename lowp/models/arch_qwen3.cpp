// Qwen3 dense: Llama with an RMSNorm on each head of q and k before RoPE.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kQwen3 = {"Qwen3ForCausalLM", [](const Json& json, const std::string& where, Config& config) {
                               config.head_norms = true;
                               config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", false);
                             }};

}  // namespace lowp::models
