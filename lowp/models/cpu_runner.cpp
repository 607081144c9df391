#include "lowp/models/cpu_runner.h"

#include "lowp/models/workspace.h"

namespace lowp::models {
namespace {

ops::Linear made(const ops::LinearWeight& w, formats::Elem compute) {
  if (const ops::PackedWeight* packed = w.packed()) return {*packed, w.recipe, w.activation_scale, w.bias, compute};
  if (const TensorView* values = w.values()) return {*values, w.bias, compute};
  return {*w.quantized(), *w.recipe, w.activation_scale, w.bias, compute};
}

}  // namespace

CpuRunner::CpuRunner(const Config& config, const LoadOptions& options, WeightSource& source)
    : config_(config),
      options_(options),
      layout_(options.compute, options.stored(), config.num_key_value_heads, config.head_dim),
      kv_pool_(std::make_shared<KvPool>(layout_.page_bytes(), config.num_hidden_layers)),
      workspace_(std::make_unique<Workspace>()) {
  const auto make = [&](const ops::LinearWeight& weight) { return made(weight, options.compute); };
  weights_.embedding =
      source.embedding("model.embed_tokens", config.vocab_size, config.hidden_size, weights_.decoded_embedding);
  weights_.norm = read_norm(config, source, "model.norm", config.hidden_size);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    tell_progress(config, options, 1 + i);
    weights_.layers.push_back(read_layer<ops::Linear>(config, source, i, make));
  }
  tell_progress(config, options, 1 + config.num_hidden_layers);
  weights_.head.emplace(make(read_head(config, source, options)));
  tell_progress(config, options, 2 + config.num_hidden_layers);
}

CpuRunner::~CpuRunner() = default;

const ops::Linear* CpuRunner::find_linear(const std::string& module) const {
  const ops::Linear* found = nullptr;
  for (const Layer& layer : weights_.layers)
    if (module.starts_with(layer.prefix))
      layer.each_linear([&](const std::string& name, const ops::Linear& linear) {
        if (std::string_view(module).substr(layer.prefix.size()) == name) found = &linear;
      });
  return found;
}

std::vector<std::pair<std::string, const ops::Linear*>> CpuRunner::linears() const {
  std::vector<std::pair<std::string, const ops::Linear*>> all;
  for (const Layer& layer : weights_.layers)
    layer.each_linear(
        [&](const std::string& name, const ops::Linear& linear) { all.emplace_back(layer.prefix + name, &linear); });
  all.emplace_back(kPackedHead, &*weights_.head);
  return all;
}

}  // namespace lowp::models
