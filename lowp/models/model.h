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

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/formats/recipe.h"
#include "lowp/models/config.h"
#include "lowp/models/kv_cache.h"
#include "lowp/models/token_choice.h"
#include "lowp/ops/attention_mode.h"
#include "lowp/ops/device.h"
#include "lowp/ops/linear.h"
#include "lowp/ops/operands.h"

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
  ops::AttentionMode attention = ops::AttentionMode::bf16;
  // What keys and values are stored as: bf16, e4m3, int8, on the CPU f32; unset: e4m3 for attention in fp8, which takes
  // nothing else, or `compute`.
  std::optional<formats::Elem> kv_cache = {};
  // Of a checkpoint of floats: its layers' Linears, but routers, are quantized while they are read, each matrix by
  // itself. Recipes that need no calibration and no search.
  std::optional<formats::Recipe> recipe = {};
  // The head, where the checkpoint does not quantize it: kept, or by this recipe, or by that of the other layers.
  std::optional<formats::Recipe> head = {};
  bool head_as_others = false;
  ops::Device device = {};
  ops::Operands operands = ops::Operands::rebased;  // on a GPU, of more than ops::CudaLinear::kFew rows
  bool invariant = false;  // on a GPU: what a sequence gets depends on nothing else in a step, and on no cut
  // Called as loading goes on, with the share of the embedding, the layers and the head that are loaded; 1 at the end.
  std::function<void(double share)> progress = nullptr;
  bool use_packed = true;  // what `lowp pack` left beside the model, if it is of the same weights and options

  formats::Elem stored() const { return kv_cache.value_or(ops::is_fp8(attention) ? formats::Elem::e4m3 : compute); }
};

/// Sees the input [rows, k] and output [rows, n] of every Linear by its module name, in execution order.
using Tap = std::function<void(const std::string& module, std::span<const float> input, std::int64_t k,
                               std::span<const float> output, std::int64_t n)>;

class CpuRunner;
class Runner;
class WeightSource;

class Model {
 public:
  /// Loads a folder (see checkpoint::resolve_model) in any dialect, quantized or not. Throws Error; usage for a recipe
  /// of a model that is quantized already.
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
  /// What a GPU's memory is for, a line; "" on the CPU.
  std::string memory_plan() const;

  /// Runs the chunks as one batch and appends to their caches. Its rows [0, total tokens), chunk after chunk, can be
  /// asked for until the next call. A sequence's result does not depend on the batch or on how it was cut into chunks,
  /// except under recipes whose activation scale spans a call, and on a GPU (docs/kernels/gpu-model.md). Token ids must
  /// be below vocab_size. Throws std::bad_alloc or Error where there is no memory for keys and values.
  void forward(std::span<const Chunk> batch);
  /// How many rows the last forward() had.
  std::int64_t rows() const { return rows_; }

  /// Logits [rows, vocab_size] of rows of the last forward().
  void logits(std::span<const std::int64_t> rows, std::span<float> out);
  std::vector<float> logits(std::span<const std::int64_t> rows);
  /// Of all its rows.
  std::vector<float> logits();
  /// The likeliest id of each of these rows among the first `limit` (the lowest on a tie); -1 where a logit of them is
  /// no finite number. On a GPU only this leaves the device.
  std::vector<std::int32_t> likeliest(std::span<const std::int64_t> rows, std::int64_t limit);
  /// Whether the device chooses and scores tokens by itself: the next two functions work.
  bool chooses() const { return options_.device.is_cuda(); }
  /// Ids chosen on the device among the first `limit`, one for each choice; -1 where none can come or a logit is no
  /// finite number.
  std::vector<std::int32_t> choose(std::span<const TokenChoice> choices, std::int64_t limit);
  /// Scores computed on the device: probabilities are over all ids, ranks and the likeliest among the first `limit`.
  std::vector<TokenScore> score(std::span<const TokenQuestion> questions, std::int64_t limit);
  static constexpr int kMostScored = 1024;  // the largest `top` of a question

  /// Where caches of this model take their pages from.
  const std::shared_ptr<KvPool>& kv_pool() const;

  // On the CPU; elsewhere Error(unsupported).

  /// The Linear of this module name (but not the head), or nullptr.
  const ops::Linear* find_linear(const std::string& module) const;

  /// Puts a Linear of the same shape in the place of the one of this name, which must be there; returns that one.
  ops::Linear exchange_linear(const std::string& module, ops::Linear linear);

  /// Writes the weights as this CPU's kernels read them to packed_path(), for later loads; returns the bytes. Not of
  /// random weights. Throws Error(io).
  std::uint64_t write_packed() const;

  /// Calls `tap` at every Linear of forward(), not of logits(); nullptr stops it.
  void set_tap(Tap tap);

 private:
  void take(WeightSource& source);
  CpuRunner& cpu() const;

  Config config_;
  LoadOptions options_;
  std::string recipe_;
  std::uint64_t weight_bytes_ = 0, streamed_bytes_ = 0;
  std::unique_ptr<checkpoint::Checkpoint> checkpoint_;  // of weights that stay in the mapped file
  std::unique_ptr<Runner> runner_;
  std::int64_t rows_ = 0;
};

}  // namespace lowp::models
