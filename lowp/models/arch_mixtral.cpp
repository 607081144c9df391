// Mixtral: Mistral with experts in every layer, whose weights stay in f32.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kMixtral = {"MixtralForCausalLM", [](const Json& json, const std::string& where, Config& config) {
                                 slide_all_layers(json, where, config);
                                 read_experts_per_token(json, where, 2, config);
                                 config.round_expert_weights = false;
                               }};

}  // namespace lowp::models
