#include "lowp/quant/sites.h"

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;
using checkpoint::kWeight;

// The last part of a module's name in a layer, if the tensor is its weight.
std::string_view part(const std::string& tensor) {
  if (!tensor.ends_with(kWeight)) return {};
  const std::string_view module = std::string_view(tensor).substr(0, tensor.size() - kWeight.size());
  return module.substr(module.rfind('.') + 1);
}

}  // namespace

checkpoint::ModelConfig rewritable_config(const Checkpoint& checkpoint) {
  std::optional<checkpoint::ModelConfig> config;
  if (checkpoint.config())
    config = checkpoint::read_model_config(*checkpoint.config(), checkpoint.path() + ": config.json");
  if (!config)
    fail(ErrorCode::unsupported, "{}: the architecture is not known to lowp, so its weights cannot be rewritten",
         checkpoint.path());
  if (config->architecture.starts_with("GptOss"))
    fail(ErrorCode::unsupported,
         "{}: between up and down projections of {} stands a gate that no factor passes, so its weights cannot be "
         "rewritten",
         checkpoint.path(), config->architecture);
  for (const checkpoint::StoredTensor& tensor : checkpoint.tensors())
    if (tensor.entry.name.find(".experts.") != std::string::npos && tensor.entry.shape.size() == 3)
      fail(ErrorCode::unsupported, "{}: tensor '{}': experts stored in one tensor cannot be rewritten",
           tensor.file->path(), tensor.entry.name);
  checkpoint::check_shapes(*config, checkpoint);
  return *config;
}

bool norms_add_one(const checkpoint::ModelConfig& config) { return config.architecture.starts_with("Gemma"); }

std::string mlp_norm(const Checkpoint& checkpoint, const std::string& layer) {
  const std::string pre = layer + "pre_feedforward_layernorm.weight";
  return checkpoint.find(pre) ? pre : layer + "post_attention_layernorm.weight";
}

MlpModules mlp_modules(const Checkpoint& checkpoint, const std::string& layer) {
  MlpModules found;
  for (const checkpoint::StoredTensor& tensor : checkpoint.tensors()) {
    const std::string& name = tensor.entry.name;
    if (!name.starts_with(layer) || name.find(".self_attn.") != std::string::npos) continue;
    const std::string_view last = part(name);
    if (last != "gate_proj" && last != "up_proj" && last != "w1" && last != "w3" && last != "gate") continue;
    found.readers.push_back(name.substr(0, name.size() - kWeight.size()));
    const std::string block = found.readers.back().substr(0, found.readers.back().rfind('.') + 1);
    if (last == "up_proj") found.pairs.emplace_back(block + "up_proj", block + "down_proj");
    if (last == "w3") found.pairs.emplace_back(block + "w3", block + "w2");
  }
  return found;
}

std::vector<Site> sites(const Checkpoint& checkpoint) {
  const checkpoint::ModelConfig config = rewritable_config(checkpoint);
  std::vector<Site> result;
  const std::int64_t shared = config.num_attention_heads / config.num_key_value_heads, dim = config.head_dim;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i), attention = layer + "self_attn.";
    result.push_back({{attention + "q_proj", attention + "k_proj", attention + "v_proj"},
                      layer + "input_layernorm.weight",
                      "",
                      config.hidden_size,
                      {}});
    Site values{{attention + "o_proj"}, "", attention + "v_proj", config.num_attention_heads * dim, {}};
    for (std::int64_t c = 0; c < values.channels; ++c) values.rows.push_back(c / dim / shared * dim + c % dim);
    result.push_back(std::move(values));
    const MlpModules mlp = mlp_modules(checkpoint, layer);
    result.push_back({mlp.readers, mlp_norm(checkpoint, layer), "", config.hidden_size, {}});
    for (const auto& [up, down] : mlp.pairs)
      result.push_back({{down}, "", up, checkpoint.find(down + std::string(kWeight))->entry.shape.back(), {}});
  }
  return result;
}

}  // namespace lowp::quant
