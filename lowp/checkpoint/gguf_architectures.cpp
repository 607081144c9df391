#include "lowp/checkpoint/gguf_architectures.h"

#include <charconv>

#include "lowp/base/error.h"

namespace lowp::checkpoint {
namespace {

constexpr GgufArchitecture kGgufArchitectures[] = {
    {"llama", "LlamaForCausalLM", "llama", false, true, false, false},
    {"llama", "MixtralForCausalLM", "mixtral", true, true, false, false},
    {"llama", "MistralForCausalLM", "mistral", false, true, false, false},  // written only: read as Llama
    {"qwen2", "Qwen2ForCausalLM", "qwen2", false, false, false, false},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", false, false, false, false},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", true, false, false, false},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", false, false, true, true},
};

struct Pair {
  std::string_view gguf, hugging_face;
};
constexpr Pair kTop[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};
constexpr Pair kLayer[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
// Names that mean one thing in most architectures and another where attention and MLP have output norms.
constexpr Pair kPlainNorms[] = {{"ffn_norm", "post_attention_layernorm"}};
constexpr Pair kOutputNorms[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
constexpr Pair kExpertNames[] = {
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.*.gate_proj"},
    {"ffn_up_exps", "mlp.experts.*.up_proj"},
    {"ffn_down_exps", "mlp.experts.*.down_proj"},
};
constexpr Pair kMixtralExperts[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate"},
    {"ffn_gate_exps", "block_sparse_moe.experts.*.w1"},
    {"ffn_up_exps", "block_sparse_moe.experts.*.w3"},
    {"ffn_down_exps", "block_sparse_moe.experts.*.w2"},
};
constexpr std::string_view kLayers = "model.layers.", kGgufLayers = "blk.";

std::vector<std::span<const Pair>> layer_tables(const GgufArchitecture& a) {
  std::vector<std::span<const Pair>> tables = {kLayer};
  if (a.output_norms)
    tables.emplace_back(kOutputNorms);
  else
    tables.emplace_back(kPlainNorms);
  if (a.has_experts) tables.emplace_back(a.model_type == "mixtral" ? kMixtralExperts : kExpertNames);
  return tables;
}

// "blk.12.rest" -> ("12", "rest"); nullopt unless a number of at most six digits stands there.
std::optional<std::pair<std::string_view, std::string_view>> split_layer(std::string_view name,
                                                                         std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const auto dot = name.find('.');
  if (dot == name.npos || dot == 0 || dot > 6) return std::nullopt;
  const std::string_view digits = name.substr(0, dot);
  if (digits.find_first_not_of("0123456789") != digits.npos || (digits.size() > 1 && digits[0] == '0'))
    return std::nullopt;
  return std::pair(digits, name.substr(dot + 1));
}

// ("attn_q", ".weight") of "attn_q.weight".
std::pair<std::string_view, std::string_view> split_field(std::string_view name) {
  const auto dot = name.rfind('.');
  return dot == name.npos ? std::pair(name, std::string_view()) : std::pair(name.substr(0, dot), name.substr(dot));
}

std::optional<std::string_view> other_side(std::span<const Pair> table, std::string_view name,
                                           std::string_view Pair::*from, std::string_view Pair::*to) {
  for (const Pair& pair : table)
    if (pair.*from == name) return pair.*to;
  return std::nullopt;
}

}  // namespace

const GgufArchitecture* find_gguf_architecture(std::string_view gguf, bool experts) {
  for (const GgufArchitecture& a : kGgufArchitectures)
    if (a.gguf == gguf && a.has_experts == experts) return &a;
  return nullptr;
}

const GgufArchitecture* find_gguf_architecture(std::string_view hugging_face) {
  for (const GgufArchitecture& a : kGgufArchitectures)
    if (a.hugging_face == hugging_face) return &a;
  return nullptr;
}

std::string gguf_architecture_names() {
  std::string names;
  for (const GgufArchitecture& a : kGgufArchitectures)
    if (names.find(a.gguf) == names.npos) names += (names.empty() ? "" : ", ") + std::string(a.gguf);
  return names;
}

std::optional<std::string> hugging_face_name(const GgufArchitecture& a, std::string_view gguf) {
  const auto layer = split_layer(gguf, kGgufLayers);
  const auto [stem, field] = split_field(layer ? layer->second : gguf);
  if (!layer) {
    const auto found = other_side(kTop, stem, &Pair::gguf, &Pair::hugging_face);
    return found ? std::optional(std::string(*found).append(field)) : std::nullopt;
  }
  for (const auto table : layer_tables(a))
    if (const auto found = other_side(table, stem, &Pair::gguf, &Pair::hugging_face))
      return std::string(kLayers).append(layer->first).append(".").append(*found).append(field);
  return std::nullopt;
}

std::optional<std::string> gguf_name(const GgufArchitecture& a, std::string_view hugging_face, std::int64_t* expert) {
  *expert = -1;
  const auto layer = split_layer(hugging_face, kLayers);
  const auto [stem, field] = split_field(layer ? layer->second : hugging_face);
  if (!layer) {
    const auto found = other_side(kTop, stem, &Pair::hugging_face, &Pair::gguf);
    return found ? std::optional(std::string(*found).append(field)) : std::nullopt;
  }
  std::string pattern(stem);
  constexpr std::string_view kMark = ".experts.";
  if (const auto at = stem.find(kMark); at != stem.npos) {
    const std::size_t begin = at + kMark.size(), end = std::min(stem.find('.', begin), stem.size());
    const auto [last, error] = std::from_chars(stem.data() + begin, stem.data() + end, *expert);
    if (error != std::errc() || last != stem.data() + end || *expert < 0) return std::nullopt;
    pattern.replace(begin, end - begin, "*");
  }
  for (const auto table : layer_tables(a))
    if (const auto found = other_side(table, pattern, &Pair::hugging_face, &Pair::gguf))
      return std::string(kGgufLayers).append(layer->first).append(".").append(*found).append(field);
  return std::nullopt;
}

std::int64_t halves_from_pairs(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t head = row / head_dim, i = row % head_dim, half = head_dim / 2;
  return head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

std::int64_t pairs_from_halves(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t head = row / head_dim, i = row % head_dim, half = head_dim / 2;
  return head * head_dim + i / 2 + i % 2 * half;
}

bool has_paired_rows(const GgufArchitecture& a, std::string_view name) {
  return a.interleaved &&
         (name.find(".self_attn.q_proj.") != name.npos || name.find(".self_attn.k_proj.") != name.npos);
}

bool has_added_one(const GgufArchitecture& a, std::string_view name) {
  return a.norms_add_one && name.ends_with("norm.weight");
}

}  // namespace lowp::checkpoint
