// What config.json says about the forward pass.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/kernels/gate.h"

namespace lowp::models {

/// Rotary position embedding and its scaling (checkpoint-formats 9.1).
struct Rope {
  enum class Scaling { none, linear, llama3, yarn };
  double theta = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn
  double attention_factor = 1;                       // yarn: multiplies cos and sin
  double original_max_position = 8192;               // llama3, yarn
};

/// Dimensions (inherited) and everything else that the forward pass depends on.
struct Config : checkpoint::ModelConfig {
  double rms_norm_eps = 1e-6;
  std::int64_t max_position_embeddings = 0;
  Rope rope;
  std::optional<Rope> window_rope;  // of layers with a window, where it is another
  /// By layer: the last positions that a token attends to, itself included; 0 is all of them.
  std::vector<std::int64_t> window;
  kernels::GateActivation gate_activation = kernels::GateActivation::silu;
  double embedding_scale = 1;     // the embedding's rows are multiplied by it, rounded to the compute dtype
  double query_scale = 0;         // of attention scores; 0 is 1 / sqrt(head_dim)
  bool norm_adds_one = false;     // y = x / rms(x) * (1 + w)
  bool norm_rounds_once = false;  // y is rounded, but not x / rms(x)
  bool output_norms = false;      // norms of what attention and MLP give, before it is added to the residual stream
  bool qkv_bias = false, output_bias = false, mlp_bias = false;
  bool head_norms = false;       // RMSNorm of each head of q and k before RoPE
  bool attention_sinks = false;  // each query head has a logit that takes its share of the softmax and gives nothing
  std::int64_t experts_per_token = 0;
  bool norm_topk_prob = true;        // weights are a softmax over the chosen experts, else over all
  bool round_expert_weights = true;  // to the compute dtype
  bool router_bias = false, expert_bias = false;
  std::vector<std::int32_t> eos_ids;  // of config.json; generation_config.json adds its own
  std::optional<std::int32_t> bos_id;
};

/// Throws Error(unsupported) naming architecture, RoPE kind or activation function that lowp does not run;
/// Error(bad_input) for missing or wrong fields.
Config parse_config(const Json& config, const std::string& where);

/// Inverse frequencies [head_dim / 2] of a config, scaling included.
std::vector<double> rope_frequencies(const Rope& rope, std::int64_t head_dim);

}  // namespace lowp::models
