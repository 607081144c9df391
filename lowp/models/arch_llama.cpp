// Llama 2, 3: RMSNorm, RoPE, grouped-query attention, SiLU-gated MLP.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kLlama = {"LlamaForCausalLM", [](const Json& json, const std::string& where, Config& config) {
                               config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", false);
                               config.mlp_bias = flag_or(json, where, "mlp_bias", false);
                             }};

}  // namespace lowp::models
