#include "lowp/models/model.h"

#include <numeric>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/kernels/head_hadamard.h"
#include "lowp/models/cpu_runner.h"
#include "lowp/models/cuda_runner.h"
#include "lowp/models/random_weights.h"

namespace lowp::models {

namespace {

// What attention asks of keys and values, whatever the device.
void check_attention(const Config& config, const LoadOptions& options) {
  const std::string_view mode = ops::name(options.attention);
  if (ops::is_fp8(options.attention) && options.stored() != formats::Elem::e4m3)
    fail(ErrorCode::usage, "--attention {} reads keys and values in fp8: --kv-cache-dtype {} stores others", mode,
         formats::name(options.stored()));
  if (ops::rotates_values(options.attention) && !kernels::has_hadamard(config.head_dim))
    fail(ErrorCode::unsupported,
         "--attention {}: heads of {} values: a Hadamard transform has a power of two, up to {}", mode, config.head_dim,
         kernels::kMostHadamard);
}

}  // namespace

Model::Model(const std::string& path, LoadOptions options) : options_(options) {
  checkpoint_ = std::make_unique<checkpoint::Checkpoint>(checkpoint::resolve_model(path));
  if (!checkpoint_->config()) fail(ErrorCode::bad_input, "{}: config.json is missing", checkpoint_->path());
  config_ = parse_config(*checkpoint_->config(), checkpoint_->path() + "/config.json");
  check_attention(config_, options);
  WeightLoader load(*checkpoint_, options);
  take(load);
  for (const checkpoint::StoredTensor& tensor : checkpoint_->tensors()) weight_bytes_ += tensor.view().bytes.size();
}

Model::Model(const Config& config, const formats::Recipe& recipe, LoadOptions options)
    : config_(config), options_(options) {
  check_attention(config_, options);
  RandomWeights load(recipe, options.device.is_cuda());
  take(load);
  weight_bytes_ = streamed_bytes_ + byte_count(DType::bf16, {config.vocab_size, config.hidden_size});
}

Model::~Model() = default;

void Model::take(WeightSource& source) {
  if (options_.device.is_cuda())
    runner_ = std::make_unique<CudaRunner>(config_, options_, source);
  else
    runner_ = std::make_unique<CpuRunner>(config_, options_, source);
  recipe_ = source.recipe();
  streamed_bytes_ = source.linear_bytes();
}

void Model::forward(std::span<const Chunk> batch) {
  rows_ = 0;
  for (const Chunk& chunk : batch) {
    const std::int64_t length = chunk.cache->length() + static_cast<std::int64_t>(chunk.tokens.size());
    LOWP_CHECK(length <= config_.max_position_embeddings, "sequence of {} tokens", length);
    LOWP_CHECK(chunk.cache->pool() == kv_pool(), "a cache of another model");
    for (const std::int32_t token : chunk.tokens)
      LOWP_CHECK(token >= 0 && token < config_.vocab_size, "token id {} of {}", token, config_.vocab_size);
    chunk.cache->reserve(length);
  }
  runner_->forward(batch);
  for (const Chunk& chunk : batch) {
    const auto tokens = static_cast<std::int64_t>(chunk.tokens.size());
    chunk.cache->advance(tokens);
    rows_ += tokens;
  }
}

void Model::logits(std::span<const std::int64_t> rows, std::span<float> out) { runner_->logits(rows, out); }

std::vector<float> Model::logits(std::span<const std::int64_t> rows) {
  std::vector<float> out(rows.size() * static_cast<std::size_t>(config_.vocab_size));
  logits(rows, out);
  return out;
}

std::vector<float> Model::logits() {
  std::vector<std::int64_t> all(static_cast<std::size_t>(rows_));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return logits(all);
}

std::vector<std::int32_t> Model::likeliest(std::span<const std::int64_t> rows, std::int64_t limit) {
  return runner_->likeliest(rows, limit);
}

std::vector<std::int32_t> Model::choose(std::span<const TokenChoice> choices, std::int64_t limit) {
  LOWP_CHECK(chooses(), "choices on {}", options_.device.name());
  return static_cast<CudaRunner&>(*runner_).choose(choices, limit);
}

std::vector<TokenScore> Model::score(std::span<const TokenQuestion> questions, std::int64_t limit) {
  LOWP_CHECK(chooses(), "scores on {}", options_.device.name());
  return static_cast<CudaRunner&>(*runner_).score(questions, limit);
}

const std::shared_ptr<KvPool>& Model::kv_pool() const { return runner_->kv_pool(); }

std::string Model::memory_plan() const { return runner_->memory_plan(); }

CpuRunner& Model::cpu() const {
  if (options_.device.is_cuda())
    fail(ErrorCode::unsupported, "looking into the layers of a model on {}: use --device cpu", options_.device.name());
  return static_cast<CpuRunner&>(*runner_);
}

const ops::Linear* Model::find_linear(const std::string& module) const { return cpu().find_linear(module); }

ops::Linear Model::exchange_linear(const std::string& module, ops::Linear linear) {
  auto* place = const_cast<ops::Linear*>(find_linear(module));  // of this object, which is not const
  LOWP_CHECK(place && place->n() == linear.n() && place->k() == linear.k(), "{} is not a Linear [{}, {}]", module,
             linear.n(), linear.k());
  return std::exchange(*place, std::move(linear));
}

std::uint64_t Model::write_packed() const {
  LOWP_CHECK(checkpoint_, "packing random weights");
  return models::write_packed(packed_path(*checkpoint_), packed_key(*checkpoint_, options_), cpu().linears());
}

void Model::set_tap(Tap tap) { cpu().set_tap(std::move(tap)); }

}  // namespace lowp::models
