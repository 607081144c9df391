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

/// Where a model's weights come from.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// A vector [size]. Throws Error(bad_input) if it is missing or has another shape.
  virtual std::vector<float> vector(const std::string& name, std::int64_t size) = 0;
  /// The Linear `module` with weight [n, k], and its bias [n] if `bias`. Fused expert tensors are sliced.
  virtual ops::Linear linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) = 0;
  /// The Linear `module` that gives logits; quantized here if the options say so and the source has not done it.
  /// Throws Error(usage) for a recipe that cannot be computed from the weight alone.
  virtual ops::Linear head(const std::string& module, std::int64_t n, std::int64_t k, const LoadOptions& options) = 0;
  virtual bool has(const std::string& module) const = 0;
  /// Values of an embedding [n, k]; `holder` owns them if the source does not.
  virtual TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) = 0;

  /// Bytes, as stored, of what linear() and head() gave so far.
  virtual std::uint64_t linear_bytes() const = 0;
  /// Names of recipes in use.
  virtual std::string recipe() const = 0;
};

/// Takes weights out of a checkpoint by name, dequantizing where they are quantized.
class WeightLoader final : public WeightSource {
 public:
  WeightLoader(const checkpoint::Checkpoint& checkpoint, formats::Elem compute);

  std::vector<float> vector(const std::string& name, std::int64_t size) override;
  ops::Linear linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override;
  ops::Linear head(const std::string& module, std::int64_t n, std::int64_t k, const LoadOptions& options) override;
  bool has(const std::string& module) const override;
  TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) override;
  std::uint64_t linear_bytes() const override { return linear_bytes_; }
  std::string recipe() const override;

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
