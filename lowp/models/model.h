// A decoder-only transformer: token ids in, hidden states and logits out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/formats/recipe.h"
#include "lowp/models/config.h"
#include "lowp/models/kv_cache.h"
#include "lowp/ops/linear.h"

namespace lowp::models {

/// Tokens that follow what the cache holds. Their count plus the cache's length must not exceed
/// max_position_embeddings.
struct Chunk {
  std::span<const std::int32_t> tokens;
  Cache* cache = nullptr;
};

struct LoadOptions {
  formats::Elem compute =
      formats::Elem::bf16;  // dtype of the residual stream and of what activation quantizers see: bf16, f32
  std::optional<formats::Elem> kv_cache = {};  // what keys and values are stored as: f32, bf16, int8; unset: `compute`
  // The head, where the checkpoint does not quantize it: kept, or by this recipe, or by that of the other layers.
  std::optional<formats::Recipe> head = {};
  bool head_as_others = false;
  // Called as loading goes on, with the share of the embedding, the layers and the head that are loaded; 1 at the end.
  std::function<void(double share)> progress = nullptr;
};

/// Sees the input [rows, k] and output [rows, n] of every Linear by its module name, in execution order.
using Tap = std::function<void(const std::string& module, std::span<const float> input, std::int64_t k,
                               std::span<const float> output, std::int64_t n)>;

class WeightSource;

class Model {
 public:
  /// Loads a folder (see checkpoint::resolve_model) in any dialect, quantized or not. Throws Error.
  Model(const std::string& path, LoadOptions options);
  /// A model of random weights in `recipe`, for measuring; the same every time.
  Model(const Config& config, const formats::Recipe& recipe, LoadOptions options);
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
  void logits(std::span<const float> hidden, std::span<float> out) const;

  /// Where caches of this model take their pages from.
  const std::shared_ptr<KvPool>& kv_pool() const { return kv_pool_; }

  /// The Linear of this module name (but not the head), or nullptr.
  const ops::Linear* find_linear(const std::string& module) const;

  /// Puts a Linear of the same shape in the place of the one of this name, which must be there; returns that one.
  ops::Linear exchange_linear(const std::string& module, ops::Linear linear);

  /// Calls `tap` at every Linear of forward(), not of logits(); nullptr stops it.
  void set_tap(Tap tap) { tap_ = std::move(tap); }

 private:
  struct Layer;
  struct Weights;
  struct Workspace;
  // A Linear, its name below its block, and the buffer that its output goes to.
  struct Projection {
    const ops::Linear* linear;
    std::string_view module;
    std::vector<float>* output;
  };
  // Rows [rows, k] that a block begins with: x, or x normalised with these weights.
  struct Rows {
    std::span<const float> x;
    const std::vector<float>* norm = nullptr;
  };
  void take(WeightSource& source);
  bool bf16() const { return options_.compute == formats::Elem::bf16; }
  void begin(std::span<const Chunk> batch);
  void project(std::span<const Projection> projections, std::string_view block, Rows in) const;
  void norm(std::span<const float> x, const std::vector<float>& weight, std::span<float> out) const;
  void prepare(const ops::Linear& linear, Rows in) const;
  std::span<const float> values(Rows in) const;
  void rotate_and_store(const Layer& layer, std::int64_t index);
  void plan_attention(std::span<const Chunk> batch, std::int64_t index);
  void attention(const Layer& layer, std::int64_t index, std::span<const Chunk> batch, Rows in);
  std::span<const float> gate_up(const ops::Linear& gate, const ops::Linear& up, std::string_view block, Rows in);
  void mlp(const Layer& layer, Rows in);
  void route(std::span<const float> scores);
  void experts(const Layer& layer, std::span<const float> x);
  using GateKernel = void (*)(float* gate, const float* up, std::int64_t count, bool bf16);
  GateKernel gate_kernel() const;
  void add_weighted(const float* from, float weight, float* to) const;
  void experts_together(const Layer& layer, std::span<const float> x, std::span<float> out);
  void experts_one_by_one(const Layer& layer, std::span<const float> x, std::span<float> out);
  void add_to_stream(const Projection& projection, std::string_view block, std::span<const float> x,
                     const std::vector<float>& norm_weight);
  void add_block(const std::vector<float>& norm_weight);

  Config config_;
  LoadOptions options_;
  std::string recipe_;
  std::uint64_t weight_bytes_ = 0, streamed_bytes_ = 0;
  Tap tap_;
  std::shared_ptr<KvPool> kv_pool_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Workspace> workspace_;  // of forward(), kept from call to call
};

}  // namespace lowp::models
