// config.json of a model folder: the fields that decide shapes, and the check that the tensors have them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"

namespace lowp::checkpoint {

/// What the parts of a sparse layer are called: "model.layers.N.<block>.<router>",
/// "model.layers.N.<block>.experts.E.<gate>".
struct ExpertNames {
  std::string block = "mlp", router = "gate", gate = "gate_proj", up = "up_proj", down = "down_proj";
};

/// Dimensions of a decoder-only transformer. Absent optional fields are derived as Hugging Face derives them
/// (checkpoint-formats 9.1).
struct ModelConfig {
  std::string architecture;  // architectures[0], e.g. "LlamaForCausalLM"
  std::int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0, vocab_size = 0;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  bool tie_word_embeddings = false;
  std::int64_t num_experts = 0, moe_intermediate_size = 0, decoder_sparse_step = 1;
  std::vector<std::int64_t> mlp_only_layers;
  ExpertNames moe;
};

/// Whether the tensors of this architecture are known, so that check_shapes() can compare them.
bool is_known_architecture(const std::string& architecture);

/// Reads the fields; nullopt if the architecture is not a known one. Throws Error(bad_input) naming file, field,
/// expected and found for a missing field, a wrong type or a size that is not positive.
std::optional<ModelConfig> read_model_config(const Json& config, const std::string& where);

/// Every tensor that the config promises must be there in its shape (a missing lm_head means tied). Stacked experts
/// (expert_stack.h) are accepted in place of one tensor per expert. Throws Error(bad_input) naming tensor, expected
/// (with the fields it follows from) and found.
void check_shapes(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace lowp::checkpoint
