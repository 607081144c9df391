// Dtypes follow transformers in eager mode: the residual stream, norms, RoPE and products are rounded to the compute
// dtype where a tensor of that dtype is written; sums, softmax and norms run in f32.
#include "lowp/models/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/models/attention.h"
#include "lowp/models/weights.h"

namespace lowp::models {
namespace {

using formats::Elem;
using formats::round_to;

// y = x / rms(x) * weight for each group of weight.size() values; `weight` has the 1 of norm_adds_one in it, and then
// the product alone is rounded.
void rms_norm(std::span<float> x, const std::vector<float>& weight, const Config& config, Elem compute) {
  const std::size_t width = weight.size();
  const auto eps = static_cast<float>(config.rms_norm_eps);
  for (std::size_t at = 0; at < x.size(); at += width) {
    float squares = 0;
    for (std::size_t i = 0; i < width; ++i) squares += x[at + i] * x[at + i];
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    for (std::size_t i = 0; i < width; ++i) {
      const float y = x[at + i] * scale;
      x[at + i] = round_to(compute, weight[i] * (config.norm_adds_one ? y : round_to(compute, y)));
    }
  }
}

std::vector<float> normed(std::span<const float> x, const std::vector<float>& weight, const Config& config,
                          Elem compute) {
  std::vector<float> out(x.begin(), x.end());
  rms_norm(out, weight, config, compute);
  return out;
}

float activate(GateActivation activation, float x) {
  if (activation == GateActivation::silu) return x / (1 + std::exp(-x));
  constexpr float kSqrt2OverPi = 0.7978845608028654f;
  return 0.5f * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
}

// activation(gate) * up, in place of gate.
void gate_up(GateActivation activation, std::span<float> gate, std::span<const float> up, Elem compute) {
  for (std::size_t i = 0; i < gate.size(); ++i)
    gate[i] = round_to(compute, round_to(compute, activate(activation, gate[i])) * up[i]);
}

}  // namespace

Cache::Cache(const Config& config)
    : head_dim_(config.head_dim),
      layers_(static_cast<std::size_t>(config.num_hidden_layers),
              std::vector<Head>(static_cast<std::size_t>(config.num_key_value_heads))) {}

void Cache::truncate(std::int64_t length) {
  LOWP_CHECK(length >= 0 && length <= length_, "truncating a cache of {} to {}", length_, length);
  length_ = length;
  for (auto& layer : layers_)
    for (Head& head : layer) {
      head.keys.resize(static_cast<std::size_t>(length * head_dim_));
      head.values.resize(static_cast<std::size_t>(length * head_dim_));
    }
}

Model::Model(const std::string& path, LoadOptions options) : options_(options), weights_(std::make_unique<Weights>()) {
  Weights& w = *weights_;
  w.checkpoint = std::make_unique<checkpoint::Checkpoint>(checkpoint::resolve_model(path));
  if (!w.checkpoint->config()) fail(ErrorCode::bad_input, "{}: config.json is missing", w.checkpoint->path());
  config_ = parse_config(*w.checkpoint->config(), w.checkpoint->path() + "/config.json");
  const Config& c = config_;
  WeightLoader load(*w.checkpoint, options.compute);
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
  const bool own_head = load.has("lm_head");
  if (!own_head && !c.tie_word_embeddings)
    fail(ErrorCode::bad_input,
         "{}: tensor 'lm_head.weight' is missing and config.json's tie_word_embeddings is not true",
         w.checkpoint->path());
  w.head = load.linear(own_head ? "lm_head" : "model.embed_tokens", c.vocab_size, c.hidden_size, false);
  recipe_ = load.recipe();
  streamed_bytes_ = load.linear_bytes();
  for (const checkpoint::StoredTensor& tensor : w.checkpoint->tensors()) weight_bytes_ += tensor.view().bytes.size();
}

Model::~Model() = default;

std::vector<float> Model::linear(const ops::Linear& weight, const std::string& module, std::span<const float> x) const {
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / weight.k();
  std::vector<float> y(static_cast<std::size_t>(rows * weight.n()));
  weight.run(x, rows, y);
  if (tap_) tap_(module, x, weight.k(), y, weight.n());
  return y;
}

std::vector<float> Model::attention(const Layer& layer, std::size_t index, std::span<const Chunk> batch,
                                    std::span<const float> x) const {
  const Config& c = config_;
  const std::string name = layer.prefix + "self_attn.";
  std::vector<float> q = linear(*layer.q, name + "q_proj", x), k = linear(*layer.k, name + "k_proj", x);
  const std::vector<float> v = linear(*layer.v, name + "v_proj", x);
  if (c.head_norms) {
    rms_norm(q, layer.q_norm, c, options_.compute);
    rms_norm(k, layer.k_norm, c, options_.compute);
  }
  std::vector<float> mixed(q.size());
  const std::int64_t d = c.head_dim, heads = c.num_attention_heads, kv_heads = c.num_key_value_heads;
  const std::int64_t window = c.window[index];
  const RopeTable rope(window > 0 && c.window_rope ? *c.window_rope : c.rope, d, options_.compute);
  const auto scale = c.query_scale > 0 ? static_cast<float>(c.query_scale) : 1.0f / std::sqrt(static_cast<float>(d));
  std::int64_t first = 0;  // row of the chunk in the batch
  for (const Chunk& chunk : batch) {
    const auto rows = static_cast<std::int64_t>(chunk.tokens.size());
    const std::int64_t past = chunk.cache->length_;
    for (std::int64_t r = 0; r < rows; ++r) {
      rope.rotate(&q[(first + r) * heads * d], heads, past + r);
      rope.rotate(&k[(first + r) * kv_heads * d], kv_heads, past + r);
      for (std::int64_t h = 0; h < kv_heads; ++h) {
        Cache::Head& head = chunk.cache->layers_[index][static_cast<std::size_t>(h)];
        const std::int64_t at = ((first + r) * kv_heads + h) * d;
        head.keys.insert(head.keys.end(), k.begin() + at, k.begin() + at + d);
        head.values.insert(head.values.end(), v.begin() + at, v.begin() + at + d);
      }
    }
    const std::int64_t group = heads / kv_heads;
    parallel_for(heads, rows > 16 ? 1 : heads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t h = begin; h < end; ++h) {
        const Cache::Head& head = chunk.cache->layers_[index][static_cast<std::size_t>(h / group)];
        attend({.queries = &q[(first * heads + h) * d],
                .stride = heads * d,
                .rows = rows,
                .past = past,
                .head_dim = d,
                .scale = scale,
                .window = window,
                .keys = head.keys,
                .values = head.values},
               options_.compute, &mixed[(first * heads + h) * d]);
      }
    });
    first += rows;
  }
  return linear(*layer.o, name + "o_proj", mixed);
}

std::vector<float> Model::mlp(const Layer& layer, std::span<const float> x) const {
  const std::string name = layer.prefix + "mlp.";
  std::vector<float> gate = linear(*layer.gate, name + "gate_proj", x);
  gate_up(config_.gate_activation, gate, linear(*layer.up, name + "up_proj", x), options_.compute);
  return linear(*layer.down, name + "down_proj", gate);
}

std::vector<float> Model::experts(const Layer& layer, std::span<const float> x) const {
  const Config& c = config_;
  const Elem compute = options_.compute;
  const auto hidden = static_cast<std::size_t>(c.hidden_size);
  const std::size_t rows = x.size() / hidden, count = layer.experts.size();
  const auto top = static_cast<std::size_t>(c.experts_per_token);
  const std::vector<float> scores = linear(*layer.router, layer.moe + "gate", x);

  struct Visit {
    std::size_t row;
    float weight;
  };
  std::vector<std::vector<Visit>> visits(count);
  std::vector<std::size_t> order(count);
  for (std::size_t r = 0; r < rows; ++r) {
    const float* s = scores.data() + r * count;
    const float largest = *std::max_element(s, s + count);
    std::vector<float> p(count);
    float sum = 0;
    for (std::size_t e = 0; e < count; ++e) sum += p[e] = std::exp(s[e] - largest);
    for (float& value : p) value /= sum;
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    float kept = 0;
    for (std::size_t i = 0; i < top; ++i) kept += p[order[i]];
    for (std::size_t i = 0; i < top; ++i)
      visits[order[i]].push_back({r, round_to(compute, c.norm_topk_prob ? p[order[i]] / kept : p[order[i]])});
  }

  std::vector<float> out(x.size());
  for (std::size_t e = 0; e < count; ++e) {
    if (visits[e].empty()) continue;
    std::vector<float> in;
    for (const Visit& visit : visits[e])
      in.insert(in.end(), x.begin() + static_cast<std::ptrdiff_t>(visit.row * hidden),
                x.begin() + static_cast<std::ptrdiff_t>((visit.row + 1) * hidden));
    const std::string name = fmt::format("{}experts.{}.", layer.moe, e);
    std::vector<float> gate = linear(layer.experts[e].gate, name + "gate_proj", in);
    gate_up(c.gate_activation, gate, linear(layer.experts[e].up, name + "up_proj", in), compute);
    const std::vector<float> y = linear(layer.experts[e].down, name + "down_proj", gate);
    for (std::size_t i = 0; i < visits[e].size(); ++i)
      for (std::size_t j = 0; j < hidden; ++j) {
        float& value = out[visits[e][i].row * hidden + j];
        value = round_to(compute, value + round_to(compute, y[i * hidden + j] * visits[e][i].weight));
      }
  }
  return out;
}

std::vector<float> Model::forward(std::span<const Chunk> batch) {
  const Config& c = config_;
  const Elem compute = options_.compute;
  std::vector<float> x;
  for (const Chunk& chunk : batch) {
    LOWP_CHECK(chunk.cache->length_ + static_cast<std::int64_t>(chunk.tokens.size()) <= c.max_position_embeddings,
               "sequence of {} tokens", chunk.cache->length_ + static_cast<std::int64_t>(chunk.tokens.size()));
    for (const std::int32_t token : chunk.tokens) {
      LOWP_CHECK(token >= 0 && token < c.vocab_size, "token id {} of {}", token, c.vocab_size);
      const std::size_t at = x.size();
      x.resize(at + static_cast<std::size_t>(c.hidden_size));
      load_f32(weights_->embedding, token * c.hidden_size, c.hidden_size, &x[at]);
    }
  }
  const float scale = round_to(compute, static_cast<float>(c.embedding_scale));
  for (float& value : x) value = round_to(compute, round_to(compute, value) * scale);
  const auto add = [&](const std::vector<float>& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = round_to(compute, x[i] + y[i]);
  };
  for (std::size_t i = 0; i < weights_->layers.size(); ++i) {
    const Layer& layer = weights_->layers[i];
    std::vector<float> mixed = attention(layer, i, batch, normed(x, layer.attention_norm, c, compute));
    if (c.output_norms) rms_norm(mixed, layer.attention_output_norm, c, compute);
    add(mixed);
    const std::vector<float> inner = normed(x, layer.mlp_norm, c, compute);
    std::vector<float> updated = layer.experts.empty() ? mlp(layer, inner) : experts(layer, inner);
    if (c.output_norms) rms_norm(updated, layer.mlp_output_norm, c, compute);
    add(updated);
  }
  for (const Chunk& chunk : batch) chunk.cache->length_ += static_cast<std::int64_t>(chunk.tokens.size());
  return normed(x, weights_->norm, c, compute);
}

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

std::vector<float> Model::logits(std::span<const float> hidden) const {
  const auto rows = static_cast<std::int64_t>(hidden.size()) / config_.hidden_size;
  std::vector<float> out(static_cast<std::size_t>(rows * config_.vocab_size));
  weights_->head->run(hidden, rows, out);
  return out;
}

}  // namespace lowp::models
