#include "lowp/models/cuda_weights.h"

#include <utility>

#include "lowp/base/error.h"

namespace lowp::models {
namespace {

namespace cuda = kernels::cuda;

cuda::Memory uploaded(const std::vector<float>& values) { return cuda::uploaded(std::as_bytes(std::span(values))); }

// Groups of Linears onto the device. Those that are equal are copied there.
class Loader {
 public:
  explicit Loader(const LoadOptions& options)
      : device_(options.device), invariant_(options.invariant), operands_(options.operands) {}

  CudaProjections operator()(std::vector<ops::LinearWeight> weights, bool gated = false) {
    std::string key;
    for (const ops::LinearWeight& weight : weights) key += weight.equal_to + "\n";
    if (const auto at = seen_.find(key); at != seen_.end()) return at->second.copy();
    CudaProjections made(weights, device_, gated, operands_);
    keep_order(made, weights[0]);
    if (!weights[0].equal_to.empty()) seen_.emplace(key, made.copy());
    return made;
  }
  ops::CudaExperts experts(const Config& config, const LayerOf<ops::LinearWeight>& layer) {
    const auto& experts = layer.experts;
    const std::string key =
        layer.router->equal_to + "\n" + experts[0].gate.equal_to + experts[0].up.equal_to + experts[0].down.equal_to;
    if (const auto at = experts_seen_.find(key); at != experts_seen_.end()) return at->second.copy();
    std::vector<std::vector<const ops::LinearWeight*>> gate_up, down;
    for (const auto& expert : experts) {
      gate_up.push_back({&expert.gate, &expert.up});
      down.push_back({&expert.down});
    }
    ops::CudaExperts made(*layer.router, {gate_up, device_}, {down, device_},
                          {.top = config.experts_per_token,
                           .normalize = config.norm_topk_prob,
                           .round_weights = config.round_expert_weights,
                           .gate = config.gate_activation},
                          device_);
    keep_order(made, experts[0].gate);
    if (!experts[0].gate.equal_to.empty()) experts_seen_.emplace(key, made.copy());
    return made;
  }
  CudaProjections together(auto&... weights) { return (*this)(all(weights...)); }
  CudaProjections gated(std::optional<ops::LinearWeight>& gate, std::optional<ops::LinearWeight>& up) {
    return (*this)(all(gate, up), true);
  }

 private:
  void keep_order(auto& made, const ops::LinearWeight& of) const {
    if (!invariant_) return;
    if (made.rows_depend())
      fail(ErrorCode::unsupported, "--invariance batch: {} has a scale for all activations of a step", of.recipe->name);
    made.keep_order();
  }
  static std::vector<ops::LinearWeight> all(auto&... weights) {
    std::vector<ops::LinearWeight> taken;
    (taken.push_back(std::move(value(weights))), ...);
    return taken;
  }
  static ops::LinearWeight& value(ops::LinearWeight& weight) { return weight; }
  static ops::LinearWeight& value(std::optional<ops::LinearWeight>& weight) { return *weight; }

  const ops::Device device_;
  const bool invariant_;
  const ops::Operands operands_;
  std::map<std::string, CudaProjections> seen_;
  std::map<std::string, ops::CudaExperts> experts_seen_;
};

}  // namespace

CudaWeights::CudaWeights(const Config& config, const LoadOptions& options, WeightSource& source) {
  cuda::use_device(options.device.cuda);
  Loader load(options);
  {
    Tensor holder, rounded;
    const TensorView values = source.embedding("model.embed_tokens", config.vocab_size, config.hidden_size, holder);
    embedding = cuda::uploaded(ops::as_bf16(values, rounded).bytes);
  }
  norm = uploaded(read_norm(config, source, "model.norm", config.hidden_size));
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    tell_progress(config, options, 1 + i);
    auto from = read_layer<ops::LinearWeight>(config, source, i, [](ops::LinearWeight&& w) { return std::move(w); });
    CudaLayer& layer = layers.emplace_back();
    layer.attention_norm = uploaded(from.attention_norm);
    layer.mlp_norm = uploaded(from.mlp_norm);
    layer.attention_output_norm = uploaded(from.attention_output_norm);
    layer.mlp_output_norm = uploaded(from.mlp_output_norm);
    layer.q_norm = uploaded(from.q_norm);
    layer.k_norm = uploaded(from.k_norm);
    layer.sinks = uploaded(from.sinks);
    layer.qkv.emplace(load.together(from.q, from.k, from.v));
    layer.o.emplace(load.together(from.o));
    if (from.experts.empty()) {
      layer.gate_up.emplace(load.gated(from.gate, from.up));
      layer.down.emplace(load.together(from.down));
      continue;
    }
    layer.experts.emplace(load.experts(config, from));
  }
  tell_progress(config, options, 1 + config.num_hidden_layers);
  std::vector<ops::LinearWeight> last;
  last.push_back(read_head(config, source, options));
  head.emplace(load(std::move(last)));
  tell_progress(config, options, 2 + config.num_hidden_layers);
}

}  // namespace lowp::models
