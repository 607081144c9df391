// gpt-oss: attention sinks, windows in every other layer, YaRN, biases everywhere, experts with a clamped gate
// (checkpoint-formats 4 and 9.2).
#include "lowp/base/error.h"
#include "lowp/kernels/gate.h"
#include "lowp/models/architecture.h"

namespace lowp::models {
namespace {

void configure_gpt_oss(const Json& json, const std::string& where, Config& config) {
  const auto only = [&](const char* key, float value) {
    if (const double found = number_or(json, where, key, value); static_cast<float>(found) != value)
      fail(ErrorCode::unsupported, "{}: {}: only {} is supported, found {}", where, key, value, found);
  };
  only("swiglu_limit", kernels::kGateLimit);
  only("swiglu_alpha", kernels::kGateSlope);
  config.gate_activation = kernels::GateActivation::clamped;
  config.norm_rounds_once = config.attention_sinks = config.router_bias = config.expert_bias = true;
  config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", true);
  read_experts_per_token(json, where, 4, config);
  if (!given(json, "layer_types"))
    for (std::size_t i = 0; i < config.window.size(); i += 2)
      config.window[i] = count_or(json, where, "sliding_window", 128);
}

}  // namespace

const Architecture kGptOss = {"GptOssForCausalLM", configure_gpt_oss};

}  // namespace lowp::models
