// The weights of a decoder, loaded from any dialect.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/expert_stack.h"
#include "lowp/models/model.h"
#include "lowp/models/packed_file.h"
#include "lowp/ops/linear_weight.h"

namespace lowp::models {

/// A decoder layer, its Linears in a device's form.
template <typename L>
struct LayerOf {
  std::string prefix;                                         // "model.layers.3."
  std::vector<float> attention_norm, mlp_norm;                // before
  std::vector<float> attention_output_norm, mlp_output_norm;  // after, in architectures with output norms
  std::vector<float> q_norm, k_norm;
  std::vector<float> sinks;  // [heads], in architectures with attention sinks
  std::optional<L> q, k, v, o;
  std::optional<L> gate, up, down;  // dense layers
  std::string moe;                  // "mlp." of a sparse layer: where router and experts are below `prefix`
  checkpoint::ExpertNames names;    // of those, and of a dense layer's matrices
  std::optional<L> router;
  struct Expert {
    L gate, up, down;
  };
  std::vector<Expert> experts;

  /// Calls each(name below `prefix`, Linear) for all of them.
  template <typename Each>
  void each_linear(const Each& each) const {
    const std::pair<const char*, const std::optional<L>*> named[] = {
        {"self_attn.q_proj", &q}, {"self_attn.k_proj", &k}, {"self_attn.v_proj", &v}, {"self_attn.o_proj", &o},
        {"mlp.gate_proj", &gate}, {"mlp.up_proj", &up},     {"mlp.down_proj", &down}};
    for (const auto& [name, linear] : named)
      if (*linear) each(std::string(name), **linear);
    if (router) each(moe + names.router, *router);
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const std::string expert = fmt::format("{}experts.{}.", moe, e);
      each(expert + names.gate, experts[e].gate);
      each(expert + names.up, experts[e].up);
      each(expert + names.down, experts[e].down);
    }
  }
};

/// Where a model's weights come from.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// A vector [size]. Throws Error(bad_input) if it is missing or has another shape.
  virtual std::vector<float> vector(const std::string& name, std::int64_t size) = 0;
  /// The Linear `module` with weight [n, k], and its bias [n] if `bias`. Stacked experts are taken apart.
  virtual ops::LinearWeight linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) = 0;
  /// The same of a router, which nothing quantizes here.
  virtual ops::LinearWeight router(const std::string& module, std::int64_t n, std::int64_t k, bool bias) = 0;
  /// The Linear `module` that gives logits; quantized here if the options say so and the source has not done it.
  /// Throws Error(usage) for a recipe that cannot be computed from the weight alone.
  virtual ops::LinearWeight head(const std::string& module, std::int64_t n, std::int64_t k,
                                 const LoadOptions& options) = 0;
  virtual bool has(const std::string& module) const = 0;
  /// Values of an embedding [n, k]; `holder` owns them if the source does not.
  virtual TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) = 0;

  /// Bytes, as stored, of what linear() and head() gave so far.
  virtual std::uint64_t linear_bytes() const = 0;
  /// Names of recipes in use.
  virtual std::string recipe() const = 0;
  /// What errors name.
  virtual std::string where() const = 0;
};

/// The weights [size] of a norm, 1 added where the architecture says so.
std::vector<float> read_norm(const Config& config, WeightSource& source, const std::string& name, std::int64_t size);

/// The head, which may be the embedding. Throws Error(bad_input) for one that is neither there nor tied.
ops::LinearWeight read_head(const Config& config, WeightSource& source, const LoadOptions& options);

/// Tells the options that so many of the embedding, the layers and the head are loaded.
void tell_progress(const Config& config, const LoadOptions& options, std::int64_t parts);

/// Whether a layer has experts in place of an MLP.
bool is_sparse(const Config& config, std::int64_t layer);

/// A layer's weights; `make` turns each ops::LinearWeight into an L before the next is read.
template <typename L, typename Make>
LayerOf<L> read_layer(const Config& c, WeightSource& source, std::int64_t index, const Make& make) {
  LayerOf<L> layer;
  layer.prefix = fmt::format("model.layers.{}.", index);
  const std::string attention = layer.prefix + "self_attn.", mlp = layer.prefix + "mlp.";
  const auto norm = [&](const std::string& name, std::int64_t size) { return read_norm(c, source, name, size); };
  const auto linear = [&](const std::string& module, std::int64_t n, std::int64_t k, bool bias) {
    return make(source.linear(module, n, k, bias));
  };
  layer.attention_norm = norm(layer.prefix + "input_layernorm", c.hidden_size);
  if (c.output_norms) {
    layer.attention_output_norm = norm(layer.prefix + "post_attention_layernorm", c.hidden_size);
    layer.mlp_norm = norm(layer.prefix + "pre_feedforward_layernorm", c.hidden_size);
    layer.mlp_output_norm = norm(layer.prefix + "post_feedforward_layernorm", c.hidden_size);
  } else {
    layer.mlp_norm = norm(layer.prefix + "post_attention_layernorm", c.hidden_size);
  }
  const std::int64_t query = c.num_attention_heads * c.head_dim, key = c.num_key_value_heads * c.head_dim;
  layer.q.emplace(linear(attention + "q_proj", query, c.hidden_size, c.qkv_bias));
  layer.k.emplace(linear(attention + "k_proj", key, c.hidden_size, c.qkv_bias));
  layer.v.emplace(linear(attention + "v_proj", key, c.hidden_size, c.qkv_bias));
  layer.o.emplace(linear(attention + "o_proj", c.hidden_size, query, c.output_bias));
  if (c.attention_sinks) layer.sinks = source.vector(attention + "sinks", c.num_attention_heads);
  if (c.head_norms) {
    layer.q_norm = norm(attention + "q_norm", c.head_dim);
    layer.k_norm = norm(attention + "k_norm", c.head_dim);
  }
  if (!is_sparse(c, index)) {
    layer.gate.emplace(linear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias));
    layer.up.emplace(linear(mlp + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias));
    layer.down.emplace(linear(mlp + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias));
    return layer;
  }
  layer.moe = c.moe.block + ".";
  layer.names = c.moe;
  const std::string moe = layer.prefix + layer.moe;
  layer.router.emplace(make(source.router(moe + c.moe.router, c.num_experts, c.hidden_size, c.router_bias)));
  for (std::int64_t e = 0; e < c.num_experts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", moe, e);
    layer.experts.push_back({linear(expert + c.moe.gate, c.moe_intermediate_size, c.hidden_size, c.expert_bias),
                             linear(expert + c.moe.up, c.moe_intermediate_size, c.hidden_size, c.expert_bias),
                             linear(expert + c.moe.down, c.hidden_size, c.moe_intermediate_size, c.expert_bias)});
  }
  return layer;
}

/// Takes weights out of a checkpoint by name: as they are stored, quantized if the options say so, or for the CPU as
/// they were packed before, if the options do not say otherwise and packed_path() has them. The file's pages that a
/// Linear was read from leave memory when the next is asked for.
class WeightLoader final : public WeightSource {
 public:
  WeightLoader(const checkpoint::Checkpoint& checkpoint, const LoadOptions& options);

  std::vector<float> vector(const std::string& name, std::int64_t size) override;
  ops::LinearWeight linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override;
  ops::LinearWeight router(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override;
  ops::LinearWeight head(const std::string& module, std::int64_t n, std::int64_t k,
                         const LoadOptions& options) override;
  bool has(const std::string& module) const override;
  TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) override;
  std::uint64_t linear_bytes() const override { return linear_bytes_; }
  std::string recipe() const override;
  std::string where() const override { return checkpoint_.path(); }

 private:
  ops::LinearWeight read(const std::string& module, const std::string& packed, std::int64_t n, std::int64_t k,
                         bool bias);
  ops::LinearWeight quantize(const std::string& module, const std::string& packed, std::int64_t n, std::int64_t k,
                             bool bias, const formats::Recipe& recipe);
  std::optional<ops::PackedWeight> find_packed(const std::string& module, std::int64_t n, std::int64_t k) const;
  checkpoint::MatrixSlice slice(const std::string& module, std::int64_t n, std::int64_t k) const;
  TensorView load(const checkpoint::MatrixSlice& slice, Tensor& holder);
  TensorView bias(const std::string& module, std::int64_t n, Tensor& holder) const;
  const checkpoint::QuantizedModule& checked(const checkpoint::QuantizedModule& module, std::int64_t n,
                                             std::int64_t k) const;
  void release();

  const checkpoint::Checkpoint& checkpoint_;
  const checkpoint::Dialect* dialect_;
  std::unique_ptr<PackedFile> packed_;
  formats::Elem compute_;
  std::optional<formats::Recipe> recipe_;  // of what is quantized here
  std::map<std::string, checkpoint::QuantizedModule> modules_;
  std::vector<std::pair<const checkpoint::TensorFile*, std::span<const std::byte>>>
      lent_;                       // the last Linear is of these
  std::set<std::string> counted_;  // tensors that are in linear_bytes_: stacked experts share them
  std::uint64_t linear_bytes_ = 0;
};

}  // namespace lowp::models
