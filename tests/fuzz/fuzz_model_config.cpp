// config.json: any bytes give a configuration or an Error; frequencies of what is accepted can be computed.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/models/config.h"

std::vector<std::string> fuzz_seeds() {
  const std::string dims =
      R"("hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64, "intermediate_size": 768)";
  return {
      R"({"architectures": ["LlamaForCausalLM"], "eos_token_id": [1, 2], "rope_theta": 10000.0, )" + dims + "}",
      R"({"architectures": ["LlamaForCausalLM"], "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}, )" +
          dims + "}",
      R"({"architectures": ["Qwen3ForCausalLM"], "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "truncate": false}, "head_dim": 64, )" +
          dims + "}",
      R"({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "mlp_only_layers": [1], )" +
          dims + "}",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const lowp::models::Config config = lowp::models::parse_config(lowp::parse_json(text, "input"), "input");
    if (config.head_dim <= 1024) lowp::models::rope_frequencies(config.rope, config.head_dim);
  } catch (const lowp::Error&) {
  }
  return 0;
}
