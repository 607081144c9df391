#include "lowp/checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "lowp/base/error.h"
#include "lowp/checkpoint/expert_stack.h"

namespace lowp::checkpoint {
namespace {

// What differs between the architectures whose tensors we know.
struct Architecture {
  std::string_view name;
  bool tied_by_default = false;
  bool head_norms = false;    // q_norm and k_norm
  bool output_norms = false;  // pre_ and post_feedforward_layernorm
  bool sinks = false;         // self_attn.sinks
  std::int64_t default_head_dim = 0;
  std::string_view experts_field = "", moe_size_field = "";  // "" for a dense model
  ExpertNames moe = {};
  bool expert_biases = false;  // and the router's
};

const Architecture kArchitectures[] = {
    {.name = "LlamaForCausalLM"},
    {.name = "MistralForCausalLM"},
    {.name = "Qwen2ForCausalLM"},
    {.name = "Qwen3ForCausalLM", .head_norms = true},
    {.name = "Gemma3ForCausalLM", .tied_by_default = true, .head_norms = true, .output_norms = true},
    {.name = "Qwen3MoeForCausalLM",
     .head_norms = true,
     .experts_field = "num_experts",
     .moe_size_field = "moe_intermediate_size"},
    {.name = "MixtralForCausalLM",
     .experts_field = "num_local_experts",
     .moe_size_field = "intermediate_size",
     .moe = {"block_sparse_moe", "gate", "w1", "w3", "w2"}},
    {.name = "GptOssForCausalLM",
     .sinks = true,
     .default_head_dim = 64,
     .experts_field = "num_local_experts",
     .moe_size_field = "intermediate_size",
     .moe = {.router = "router"},
     .expert_biases = true},
};

const Architecture* find_architecture(const std::string& name) {
  for (const Architecture& a : kArchitectures)
    if (a.name == name) return &a;
  return nullptr;
}

constexpr std::int64_t kLargest = std::int64_t{1} << 31;

std::optional<std::int64_t> size_field(const Json& config, const std::string& where, const std::string& key) {
  const auto at = config.find(key);
  if (at == config.end() || at->is_null()) return std::nullopt;
  if (!at->is_number_integer())
    fail(ErrorCode::bad_input, "{}: {}: expected a whole number, found {}", where, key, at->dump());
  const auto value = at->get<std::int64_t>();
  if (value < 1 || value > kLargest)
    fail(ErrorCode::bad_input, "{}: {}: expected a number from 1 to {}, found {}", where, key, kLargest, at->dump());
  return value;
}

std::int64_t required_size(const Json& config, const std::string& where, const std::string& key) {
  if (const auto value = size_field(config, where, key)) return *value;
  fail(ErrorCode::bad_input, "{}: {} is missing", where, key);
}

// The count goes by two names: the architecture's own, and what transformers 5 writes for all of them.
std::int64_t expert_count(const Json& config, const std::string& where, const std::string& own) {
  const auto by_own = size_field(config, where, own), common = size_field(config, where, "num_local_experts");
  if (by_own && common && by_own != common)
    fail(ErrorCode::bad_input, "{}: {} is {} and num_local_experts {}", where, own, *by_own, *common);
  if (common) return *common;
  return by_own ? *by_own : required_size(config, where, own);
}

bool flag(const Json& config, const std::string& where, const std::string& key, bool fallback) {
  const auto at = config.find(key);
  if (at == config.end() || at->is_null()) return fallback;
  if (!at->is_boolean()) fail(ErrorCode::bad_input, "{}: {}: expected true or false, found {}", where, key, at->dump());
  return at->get<bool>();
}

// A dimension with the words that explain it.
struct Dim {
  std::int64_t size;
  std::string why;
};

void check(const Checkpoint& checkpoint, const std::string& name, const std::vector<Dim>& dims) {
  const StoredTensor* tensor = checkpoint.find(name);
  std::vector<std::string> why;
  Shape expected;
  for (const Dim& dim : dims) {
    why.push_back(dim.why);
    expected.push_back(dim.size);
  }
  if (!tensor)
    fail(ErrorCode::bad_input, "{}: tensor '{}' is missing; config.json promises {}", checkpoint.path(), name,
         to_string(expected));
  if (tensor->entry.shape != expected)
    fail(ErrorCode::bad_input, "{}: tensor '{}': config.json says {} [{}], found {}", tensor->file->path(), name,
         to_string(expected), fmt::join(why, ", "), to_string(tensor->entry.shape));
}

// A layer that config.json does not count would be carried along and never run.
void check_layer_numbers(const ModelConfig& c, const Checkpoint& checkpoint) {
  constexpr std::string_view kLayers = "model.layers.";
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const std::string& name = tensor.entry.name;
    if (!name.starts_with(kLayers)) continue;
    std::int64_t layer = 0;
    const auto [end, error] = std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
    if (error == std::errc() && layer >= c.num_hidden_layers)
      fail(ErrorCode::bad_input, "{}: tensor '{}': config.json says num_hidden_layers {}, expected no layer {}",
           tensor.file->path(), name, c.num_hidden_layers, layer);
  }
}

}  // namespace

bool is_known_architecture(const std::string& architecture) { return find_architecture(architecture) != nullptr; }

std::optional<ModelConfig> read_model_config(const Json& config, const std::string& where) {
  const auto list = config.find("architectures");
  if (list == config.end() || list->is_null()) return std::nullopt;
  if (!list->is_array() || list->empty() || !list->front().is_string())
    fail(ErrorCode::bad_input, "{}: architectures: expected a list with a name, found {}", where, list->dump());
  ModelConfig result;
  result.architecture = list->front().get<std::string>();
  const Architecture* known = find_architecture(result.architecture);
  if (!known) return std::nullopt;

  result.hidden_size = required_size(config, where, "hidden_size");
  result.num_hidden_layers = required_size(config, where, "num_hidden_layers");
  result.vocab_size = required_size(config, where, "vocab_size");
  result.num_attention_heads = required_size(config, where, "num_attention_heads");
  result.num_key_value_heads = size_field(config, where, "num_key_value_heads").value_or(result.num_attention_heads);
  result.intermediate_size = required_size(config, where, "intermediate_size");
  if (const auto head_dim = size_field(config, where, "head_dim")) {
    result.head_dim = *head_dim;
  } else if (known->default_head_dim > 0) {
    result.head_dim = known->default_head_dim;
  } else {
    if (result.hidden_size % result.num_attention_heads != 0)
      fail(ErrorCode::bad_input,
           "{}: hidden_size {} is not a multiple of num_attention_heads {} and head_dim is missing", where,
           result.hidden_size, result.num_attention_heads);
    result.head_dim = result.hidden_size / result.num_attention_heads;
  }
  if (result.num_attention_heads % result.num_key_value_heads != 0)
    fail(ErrorCode::bad_input, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", where,
         result.num_attention_heads, result.num_key_value_heads);
  result.tie_word_embeddings = flag(config, where, "tie_word_embeddings", known->tied_by_default);
  if (!known->experts_field.empty()) {
    result.num_experts = expert_count(config, where, std::string(known->experts_field));
    result.moe_intermediate_size = required_size(config, where, std::string(known->moe_size_field));
    result.moe = known->moe;
    result.decoder_sparse_step = size_field(config, where, "decoder_sparse_step").value_or(1);
    if (const auto at = config.find("mlp_only_layers"); at != config.end() && !at->is_null()) {
      const bool whole =
          at->is_array() && std::all_of(at->begin(), at->end(), [](const Json& i) { return i.is_number_integer(); });
      if (!whole)
        fail(ErrorCode::bad_input, "{}: mlp_only_layers: expected a list of layers, found {}", where, at->dump());
      result.mlp_only_layers = at->get<std::vector<std::int64_t>>();
    }
  }
  return result;
}

void check_shapes(const ModelConfig& c, const Checkpoint& checkpoint) {
  check_layer_numbers(c, checkpoint);
  const Architecture& a = *find_architecture(c.architecture);
  const Dim hidden{c.hidden_size, "hidden_size"}, inner{c.intermediate_size, "intermediate_size"};
  const Dim vocab{c.vocab_size, "vocab_size"};
  const Dim heads{c.num_attention_heads * c.head_dim, "num_attention_heads x head_dim"};
  const Dim kv_heads{c.num_key_value_heads * c.head_dim, "num_key_value_heads x head_dim"};
  const Dim head{c.head_dim, "head_dim"};

  check(checkpoint, "model.embed_tokens.weight", {vocab, hidden});
  check(checkpoint, "model.norm.weight", {hidden});
  if (!c.tie_word_embeddings || checkpoint.find("lm_head.weight")) check(checkpoint, "lm_head.weight", {vocab, hidden});
  // A huge layer count fails at the first missing layer, so this loop is bounded by the file.
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i), attention = layer + "self_attn.";
    check(checkpoint, layer + "input_layernorm.weight", {hidden});
    check(checkpoint, layer + "post_attention_layernorm.weight", {hidden});
    if (a.output_norms) {
      check(checkpoint, layer + "pre_feedforward_layernorm.weight", {hidden});
      check(checkpoint, layer + "post_feedforward_layernorm.weight", {hidden});
    }
    check(checkpoint, attention + "q_proj.weight", {heads, hidden});
    check(checkpoint, attention + "k_proj.weight", {kv_heads, hidden});
    check(checkpoint, attention + "v_proj.weight", {kv_heads, hidden});
    check(checkpoint, attention + "o_proj.weight", {hidden, heads});
    if (a.sinks) check(checkpoint, attention + "sinks", {{c.num_attention_heads, "num_attention_heads"}});
    if (a.head_norms) {
      check(checkpoint, attention + "q_norm.weight", {head});
      check(checkpoint, attention + "k_norm.weight", {head});
    }
    const bool dense_layer =
        std::find(c.mlp_only_layers.begin(), c.mlp_only_layers.end(), i) != c.mlp_only_layers.end();
    if (c.num_experts == 0 || dense_layer || (i + 1) % c.decoder_sparse_step != 0) {
      check(checkpoint, layer + "mlp.gate_proj.weight", {inner, hidden});
      check(checkpoint, layer + "mlp.up_proj.weight", {inner, hidden});
      check(checkpoint, layer + "mlp.down_proj.weight", {hidden, inner});
      continue;
    }
    const Dim experts{c.num_experts, std::string(a.experts_field)},
        small{c.moe_intermediate_size, std::string(a.moe_size_field)};
    const std::string block = fmt::format("{}{}.", layer, c.moe.block), stack = block + "experts.";
    check(checkpoint, fmt::format("{}{}.weight", block, c.moe.router), {experts, hidden});
    if (a.expert_biases) check(checkpoint, fmt::format("{}{}.bias", block, c.moe.router), {experts});
    const Dim both{2 * small.size, "2 x " + small.why};
    if (checkpoint.find(stack + "gate_up_proj")) {
      const bool columns = stacks_columns(checkpoint);
      check(checkpoint, stack + "gate_up_proj",
            columns ? std::vector{experts, hidden, both} : std::vector{experts, both, hidden});
      check(checkpoint, stack + "down_proj",
            columns ? std::vector{experts, small, hidden} : std::vector{experts, hidden, small});
      if (a.expert_biases) {
        check(checkpoint, stack + "gate_up_proj_bias", {experts, both});
        check(checkpoint, stack + "down_proj_bias", {experts, hidden});
      }
      continue;
    }
    for (std::int64_t e = 0; e < c.num_experts; ++e) {
      const std::string expert = fmt::format("{}{}.", stack, e);
      check(checkpoint, fmt::format("{}{}.weight", expert, c.moe.gate), {small, hidden});
      check(checkpoint, fmt::format("{}{}.weight", expert, c.moe.up), {small, hidden});
      check(checkpoint, fmt::format("{}{}.weight", expert, c.moe.down), {hidden, small});
    }
  }
}

}  // namespace lowp::checkpoint
