// A decoder-only transformer: token ids in, hidden states and logits out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowp/models/config.h"
#include "lowp/ops/linear.h"

namespace lowp::models {

/// Keys and values of one sequence. Copyable; a model's caches fit only that model.
class Cache {
 public:
  explicit Cache(const Config& config);
  std::int64_t length() const { return length_; }
  /// Forgets everything from position `length` on.
  void truncate(std::int64_t length);

 private:
  friend class Model;
  struct Head {
    std::vector<float> keys, values;  // [length, head_dim]
  };
  std::int64_t length_ = 0, head_dim_ = 0;
  std::vector<std::vector<Head>> layers_;  // [layer][kv head]
};

/// Tokens that follow what the cache holds. Their count plus the cache's length must not exceed
/// max_position_embeddings.
struct Chunk {
  std::span<const std::int32_t> tokens;
  Cache* cache = nullptr;
};

struct LoadOptions {
  formats::Elem compute =
      formats::Elem::bf16;  // dtype of the residual stream and of what activation quantizers see: bf16, f32
};

/// Sees the input [rows, k] and output [rows, n] of every Linear by its module name, in execution order.
using Tap = std::function<void(const std::string& module, std::span<const float> input, std::int64_t k,
                               std::span<const float> output, std::int64_t n)>;

class Model {
 public:
  /// Loads a folder (see checkpoint::resolve_model) in any dialect, quantized or not. Throws Error.
  Model(const std::string& path, LoadOptions options);
  ~Model();

  const Config& config() const { return config_; }
  const LoadOptions& options() const { return options_; }
  /// "int4_g128-bf16", "bf16", or "mixed (...)".
  const std::string& recipe() const { return recipe_; }
  /// Bytes of all weights as stored, and of those that every token streams: without the embedding, with a tied head.
  std::uint64_t weight_bytes() const { return weight_bytes_; }
  std::uint64_t streamed_bytes() const { return streamed_bytes_; }

  /// Runs the chunks as one batch and appends to their caches. Returns final hidden states [total tokens, hidden_size]
  /// (after the last norm), chunk after chunk. A sequence's result does not depend on the batch or on how it was cut
  /// into chunks, except under recipes whose activation scale spans a call. Token ids must be below vocab_size.
  std::vector<float> forward(std::span<const Chunk> batch);

  /// Logits [rows, vocab_size] of hidden states [rows, hidden_size].
  std::vector<float> logits(std::span<const float> hidden) const;

  /// The Linear of this module name (but not the head), or nullptr.
  const ops::Linear* find_linear(const std::string& module) const;

  /// Calls `tap` at every Linear of forward(), not of logits(); nullptr stops it.
  void set_tap(Tap tap) { tap_ = std::move(tap); }

 private:
  struct Layer;
  struct Weights;
  std::vector<float> linear(const ops::Linear& weight, const std::string& module, std::span<const float> x) const;
  std::vector<float> attention(const Layer& layer, std::size_t index, std::span<const Chunk> batch,
                               std::span<const float> x) const;
  std::vector<float> mlp(const Layer& layer, std::span<const float> x) const;
  std::vector<float> experts(const Layer& layer, std::span<const float> x) const;

  Config config_;
  LoadOptions options_;
  std::string recipe_;
  std::uint64_t weight_bytes_ = 0, streamed_bytes_ = 0;
  Tap tap_;
  std::unique_ptr<Weights> weights_;
};

}  // namespace lowp::models
