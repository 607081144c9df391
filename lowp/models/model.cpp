#include "lowp/models/model.h"

#include <algorithm>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/models/random_weights.h"
#include "lowp/models/weights.h"
#include "lowp/models/workspace.h"

namespace lowp::models {

Model::Model(const std::string& path, LoadOptions options)
    : options_(options), weights_(std::make_unique<Weights>()), workspace_(std::make_unique<Workspace>()) {
  Weights& w = *weights_;
  w.checkpoint = std::make_unique<checkpoint::Checkpoint>(checkpoint::resolve_model(path));
  if (!w.checkpoint->config()) fail(ErrorCode::bad_input, "{}: config.json is missing", w.checkpoint->path());
  config_ = parse_config(*w.checkpoint->config(), w.checkpoint->path() + "/config.json");
  WeightLoader load(*w.checkpoint, options.compute);
  take(load);
  for (const checkpoint::StoredTensor& tensor : w.checkpoint->tensors()) weight_bytes_ += tensor.view().bytes.size();
}

Model::Model(const Config& config, const formats::Recipe& recipe, LoadOptions options)
    : config_(config),
      options_(options),
      weights_(std::make_unique<Weights>()),
      workspace_(std::make_unique<Workspace>()) {
  RandomWeights load(recipe, options.compute);
  take(load);
  weight_bytes_ = streamed_bytes_ + weights_->embedding.bytes.size();
}

void Model::take(WeightSource& load) {
  const Config& c = config_;
  Weights& w = *weights_;
  const auto loaded = [&](std::int64_t parts) {
    if (options_.progress) options_.progress(static_cast<double>(parts) / static_cast<double>(c.num_hidden_layers + 2));
  };
  w.embedding = load.embedding("model.embed_tokens", c.vocab_size, c.hidden_size, w.decoded_embedding);
  const auto norm = [&](const std::string& name, std::int64_t size) {
    std::vector<float> weight = load.vector(name + ".weight", size);
    if (c.norm_adds_one)
      for (float& value : weight) value += 1;
    return weight;
  };
  w.norm = norm("model.norm", c.hidden_size);
  const std::int64_t query = c.num_attention_heads * c.head_dim, key = c.num_key_value_heads * c.head_dim;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    loaded(1 + i);
    Layer& layer = w.layers.emplace_back();
    layer.prefix = fmt::format("model.layers.{}.", i);
    const std::string attention = layer.prefix + "self_attn.";
    layer.attention_norm = norm(layer.prefix + "input_layernorm", c.hidden_size);
    if (c.output_norms) {
      layer.attention_output_norm = norm(layer.prefix + "post_attention_layernorm", c.hidden_size);
      layer.mlp_norm = norm(layer.prefix + "pre_feedforward_layernorm", c.hidden_size);
      layer.mlp_output_norm = norm(layer.prefix + "post_feedforward_layernorm", c.hidden_size);
    } else {
      layer.mlp_norm = norm(layer.prefix + "post_attention_layernorm", c.hidden_size);
    }
    layer.q = load.linear(attention + "q_proj", query, c.hidden_size, c.qkv_bias);
    layer.k = load.linear(attention + "k_proj", key, c.hidden_size, c.qkv_bias);
    layer.v = load.linear(attention + "v_proj", key, c.hidden_size, c.qkv_bias);
    layer.o = load.linear(attention + "o_proj", c.hidden_size, query, c.output_bias);
    if (c.head_norms) {
      layer.q_norm = norm(attention + "q_norm", c.head_dim);
      layer.k_norm = norm(attention + "k_norm", c.head_dim);
    }
    const bool listed = std::find(c.mlp_only_layers.begin(), c.mlp_only_layers.end(), i) != c.mlp_only_layers.end();
    const std::string mlp = layer.prefix + "mlp.";
    if (c.num_experts == 0 || listed || (i + 1) % c.decoder_sparse_step != 0) {
      layer.gate = load.linear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
      layer.up = load.linear(mlp + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
      layer.down = load.linear(mlp + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
      continue;
    }
    layer.moe = mlp;
    layer.router = load.linear(mlp + "gate", c.num_experts, c.hidden_size, false);
    for (std::int64_t e = 0; e < c.num_experts; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", mlp, e);
      layer.experts.push_back({load.linear(expert + "gate_proj", c.moe_intermediate_size, c.hidden_size, false),
                               load.linear(expert + "up_proj", c.moe_intermediate_size, c.hidden_size, false),
                               load.linear(expert + "down_proj", c.hidden_size, c.moe_intermediate_size, false)});
    }
  }
  loaded(1 + c.num_hidden_layers);
  const bool own_head = load.has("lm_head");
  if (!own_head && !c.tie_word_embeddings)
    fail(ErrorCode::bad_input,
         "{}: tensor 'lm_head.weight' is missing and config.json's tie_word_embeddings is not true",
         w.checkpoint->path());
  w.head = load.head(own_head ? "lm_head" : "model.embed_tokens", c.vocab_size, c.hidden_size, options_);
  recipe_ = load.recipe();
  streamed_bytes_ = load.linear_bytes();
  const formats::Elem stored = options_.kv_cache.value_or(options_.compute);
  kv_pool_ = std::make_shared<KvPool>(ops::KvLayout(options_.compute, stored, c.num_key_value_heads, c.head_dim),
                                      c.num_hidden_layers);
  loaded(2 + c.num_hidden_layers);
}

Model::~Model() = default;

const ops::Linear* Model::find_linear(const std::string& module) const {
  for (const Layer& layer : weights_->layers) {
    if (!module.starts_with(layer.prefix)) continue;
    const std::string rest = module.substr(layer.prefix.size());
    const std::pair<const char*, const std::optional<ops::Linear>*> named[] = {
        {"self_attn.q_proj", &layer.q}, {"self_attn.k_proj", &layer.k}, {"self_attn.v_proj", &layer.v},
        {"self_attn.o_proj", &layer.o}, {"mlp.gate_proj", &layer.gate}, {"mlp.up_proj", &layer.up},
        {"mlp.down_proj", &layer.down}, {"mlp.gate", &layer.router}};
    for (const auto& [name, weight] : named)
      if (rest == name && *weight) return &**weight;
    for (std::size_t e = 0; e < layer.experts.size(); ++e) {
      const std::string expert = fmt::format("mlp.experts.{}.", e);
      if (rest == expert + "gate_proj") return &layer.experts[e].gate;
      if (rest == expert + "up_proj") return &layer.experts[e].up;
      if (rest == expert + "down_proj") return &layer.experts[e].down;
    }
  }
  return nullptr;
}

ops::Linear Model::exchange_linear(const std::string& module, ops::Linear linear) {
  auto* place = const_cast<ops::Linear*>(find_linear(module));  // of this object, which is not const
  LOWP_CHECK(place && place->n() == linear.n() && place->k() == linear.k(), "{} is not a Linear [{}, {}]", module,
             linear.n(), linear.k());
  return std::exchange(*place, std::move(linear));
}

void Model::logits(std::span<const float> hidden, std::span<float> out) const {
  weights_->head->run(hidden, static_cast<std::int64_t>(hidden.size()) / config_.hidden_size, out);
}

std::vector<float> Model::logits(std::span<const float> hidden) const {
  const auto rows = static_cast<std::int64_t>(hidden.size()) / config_.hidden_size;
  std::vector<float> out(static_cast<std::size_t>(rows * config_.vocab_size));
  logits(hidden, out);
  return out;
}

}  // namespace lowp::models
