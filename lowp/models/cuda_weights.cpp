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
  explicit Loader(const ops::Device& device) : device_(device) {}

  CudaProjections operator()(std::vector<ops::LinearWeight> weights) {
    std::string key;
    for (const ops::LinearWeight& weight : weights) key += weight.equal_to + "\n";
    if (const auto at = seen_.find(key); at != seen_.end()) return at->second.copy();
    CudaProjections made(weights, device_);
    if (!weights[0].equal_to.empty()) seen_.emplace(key, made.copy());
    return made;
  }
  CudaProjections together(auto&... weights) {
    std::vector<ops::LinearWeight> all;
    (all.push_back(std::move(value(weights))), ...);
    return (*this)(std::move(all));
  }

 private:
  static ops::LinearWeight& value(ops::LinearWeight& weight) { return weight; }
  static ops::LinearWeight& value(std::optional<ops::LinearWeight>& weight) { return *weight; }

  const ops::Device device_;
  std::map<std::string, CudaProjections> seen_;
};

}  // namespace

CudaWeights::CudaWeights(const Config& config, const LoadOptions& options, WeightSource& source) {
  cuda::use_device(options.device.cuda);
  Loader load(options.device);
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
      layer.gate_up.emplace(load.together(from.gate, from.up));
      layer.down.emplace(load.together(from.down));
      continue;
    }
    layer.router.emplace(load.together(from.router));
    for (auto& expert : from.experts)
      layer.experts.push_back({load.together(expert.gate, expert.up), load.together(expert.down)});
  }
  tell_progress(config, options, 1 + config.num_hidden_layers);
  std::vector<ops::LinearWeight> last;
  last.push_back(read_head(config, source, options));
  head.emplace(load(std::move(last)));
  tell_progress(config, options, 2 + config.num_hidden_layers);
}

}  // namespace lowp::models
