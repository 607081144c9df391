// Where a model can take factors of channels from one tensor into the next: norms, and matrices that nothing but a
// product by element stands between.
#pragma once

#include <string>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/model_config.h"

namespace lowp::quant {

/// Modules that read the same channels, and the tensors that make these.
struct Site {
  std::vector<std::string> readers;  // modules: factors multiply the columns of their weights [m, channels]
  std::string norm;                  // the norm's weight [channels], or "": a module makes the channels
  std::string maker;                 // module: factors divide the rows of its weight (and bias)
  std::int64_t channels = 0;         // that readers see
  // Channels that are copies of one row of the maker (heads that share values) must have one factor. Channel c is row
  // rows[c]; empty: c.
  std::vector<std::int64_t> rows;
};

/// All sites of a model, layer by layer: input norm -> q, k, v; v -> o; second norm -> gate, up (and router); up ->
/// down of each MLP or expert. Throws Error(unsupported) for an architecture that is not known, for gpt-oss, and for
/// experts stored in one tensor.
std::vector<Site> sites(const checkpoint::Checkpoint& checkpoint);

/// The configuration of a checkpoint of separate float matrices whose shapes it gives; the errors are those of sites()
/// and of checkpoint::check_shapes().
checkpoint::ModelConfig rewritable_config(const checkpoint::Checkpoint& checkpoint);

/// The weight of a norm is added to 1 (Gemma).
bool norms_add_one(const checkpoint::ModelConfig& config);

/// The norm before the MLP of a layer ("model.layers.0.").
std::string mlp_norm(const checkpoint::Checkpoint& checkpoint, const std::string& layer);

/// Modules of a layer that read the second norm's output, and pairs (up, down) of its MLP or experts.
struct MlpModules {
  std::vector<std::string> readers;
  std::vector<std::pair<std::string, std::string>> pairs;
};
MlpModules mlp_modules(const checkpoint::Checkpoint& checkpoint, const std::string& layer);

}  // namespace lowp::quant
