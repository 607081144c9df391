// The weights of a decoder, loaded from any dialect.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lowp/checkpoint/dialect.h"
#include "lowp/models/model.h"

namespace lowp::models {

struct Model::Layer {
  std::string prefix;                                         // "model.layers.3."
  std::vector<float> attention_norm, mlp_norm;                // before
  std::vector<float> attention_output_norm, mlp_output_norm;  // after, in architectures with output norms
  std::vector<float> q_norm, k_norm;
  std::optional<ops::Linear> q, k, v, o;
  std::optional<ops::Linear> gate, up, down;  // dense layers
  std::string moe;                            // "model.layers.3.mlp." of a sparse layer
  std::optional<ops::Linear> router;
  struct Expert {
    ops::Linear gate, up, down;
  };
  std::vector<Expert> experts;
};

struct Model::Weights {
  std::unique_ptr<checkpoint::Checkpoint> checkpoint;
  TensorView embedding;  // [vocab, hidden]; in the mapped file, or in `decoded_embedding`
  Tensor decoded_embedding;
  std::vector<Layer> layers;
  std::vector<float> norm;
  std::optional<ops::Linear> head;
};

/// Takes weights out of a checkpoint by name, dequantizing where they are quantized.
class WeightLoader {
 public:
  WeightLoader(const checkpoint::Checkpoint& checkpoint, formats::Elem compute);

  /// A vector [size]. Throws Error(bad_input) if it is missing or has another shape.
  std::vector<float> vector(const std::string& name, std::int64_t size) const;
  /// The Linear `module` with weight [n, k], and its bias [n] if `bias`. Fused expert tensors are sliced.
  ops::Linear linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias);
  /// The Linear that gives logits, quantized here if the options say so and the checkpoint has not done it. Throws
  /// Error(usage) for a recipe that cannot be computed from the weight alone.
  ops::Linear head(const std::string& module, std::int64_t n, std::int64_t k, const LoadOptions& options);
  bool has(const std::string& module) const;
  /// Values of an embedding [n, k]; `holder` owns them if they had to be decoded.
  TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder);

  /// Bytes, as stored, of what linear() loaded so far.
  std::uint64_t linear_bytes() const { return linear_bytes_; }
  /// Names of recipes in use.
  std::string recipe() const;

 private:
  std::optional<TensorView> find_weight(const std::string& module, std::int64_t n, std::int64_t k) const;
  const checkpoint::QuantizedModule& checked(const checkpoint::QuantizedModule& module, std::int64_t n,
                                             std::int64_t k) const;

  const checkpoint::Checkpoint& checkpoint_;
  const checkpoint::Dialect* dialect_;
  formats::Elem compute_;
  std::map<std::string, checkpoint::QuantizedModule> modules_;
  std::set<std::string> counted_;  // tensors that are in linear_bytes_: stacked experts share them
  std::uint64_t linear_bytes_ = 0;
};

}  // namespace lowp::models
