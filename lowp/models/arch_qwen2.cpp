// Qwen2, Qwen2.5: Llama with biases of q, k and v, which no field of the config announces.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kQwen2 = {"Qwen2ForCausalLM",
                             [](const Json&, const std::string&, Config& config) { config.qkv_bias = true; }};

}  // namespace lowp::models
