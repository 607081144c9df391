// Gemma 3 (text): four norms a layer that scale by 1 + w, head norms, windows in five layers of six with a RoPE of
// their own, a GELU-gated MLP, an embedding scaled by sqrt(hidden_size) (checkpoint-formats 9.2).
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/models/architecture.h"

namespace lowp::models {
namespace {

void configure_gemma3(const Json& json, const std::string& where, Config& config) {
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (number_or(json, where, key, 0) != 0) fail(ErrorCode::unsupported, "{}: {} is not supported", where, key);
  config.head_norms = config.norm_adds_one = config.norm_rounds_once = config.output_norms = true;
  config.qkv_bias = config.output_bias = flag_or(json, where, "attention_bias", false);
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  const double scalar = number_or(json, where, "query_pre_attn_scalar", 256);
  if (!(scalar > 0)) fail(ErrorCode::bad_input, "{}: query_pre_attn_scalar: expected a positive number", where);
  config.query_scale = 1 / std::sqrt(scalar);
  if (!given(json, "layer_types")) {
    // transformers 4 wrote the period, at times with an underscore.
    const char* key = json.contains("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    const std::int64_t period = count_or(json, where, key, 6), window = count_or(json, where, "sliding_window", 4096);
    for (std::size_t i = 0; i < config.window.size(); ++i)
      config.window[i] = (static_cast<std::int64_t>(i) + 1) % period == 0 ? 0 : window;
  }
  if (!config.window_rope) {
    config.window_rope.emplace();
    config.window_rope->theta = number_or(json, where, "rope_local_base_freq", 10000);
  }
}

}  // namespace

const Architecture kGemma3 = {"Gemma3ForCausalLM", configure_gemma3};

}  // namespace lowp::models
