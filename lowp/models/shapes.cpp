#include "lowp/models/shapes.h"

#include <utility>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"

namespace lowp::models {
namespace {

// What their config.json says about the forward pass.
constexpr std::pair<const char*, const char*> kShapes[] = {
    {"llama-3.2-1b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 128256, "tie_word_embeddings": true, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
      "rope_theta": 500000.0, "hidden_act": "silu"})"},
    {"llama-3.2-3b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 3072, "intermediate_size": 8192,
      "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 128256, "tie_word_embeddings": true, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
      "rope_theta": 500000.0, "hidden_act": "silu"})"},
    {"llama-3.1-8b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 128256, "tie_word_embeddings": false, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
      "rope_theta": 500000.0, "hidden_act": "silu"})"},
    {"mistral-7b", R"({"architectures": ["MistralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 32768, "tie_word_embeddings": false, "max_position_embeddings": 32768, "sliding_window": null,
      "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "hidden_act": "silu"})"},
    {"mixtral-8x7b", R"({"architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "tie_word_embeddings": false,
      "max_position_embeddings": 32768, "sliding_window": null, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
      "hidden_act": "silu"})"},
    {"gpt-oss-20b", R"({"architectures": ["GptOssForCausalLM"], "hidden_size": 2880, "intermediate_size": 2880,
      "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
      "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "swiglu_limit": 7.0,
      "attention_bias": true, "vocab_size": 201088, "tie_word_embeddings": false, "max_position_embeddings": 131072,
      "rms_norm_eps": 1e-5, "rope_theta": 150000, "hidden_act": "silu", "rope_scaling": {"rope_type": "yarn",
      "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
      "original_max_position_embeddings": 4096}})"},
    {"qwen3-0.6b", R"({"architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072,
      "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "tie_word_embeddings": true, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
      "rope_theta": 1000000.0, "hidden_act": "silu"})"},
    {"qwen3-8b", R"({"architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
      "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "tie_word_embeddings": false, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
      "rope_theta": 1000000.0, "hidden_act": "silu"})"},
    {"qwen3-30b-a3b", R"({"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144,
      "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
      "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": true,
      "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936, "tie_word_embeddings": false,
      "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu"})"},
};

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : kShapes) names.emplace_back(name);
  return names;
}

Config shape(const std::string& name) {
  for (const auto& [known, config] : kShapes)
    if (name == known) return parse_config(parse_json(config, "shape " + name), "shape " + name);
  const std::vector<std::string> names = shape_names();
  fail(ErrorCode::usage, "unknown shape '{}'{}; known: {}", name, did_you_mean(name, names), fmt::join(names, ", "));
}

}  // namespace lowp::models
