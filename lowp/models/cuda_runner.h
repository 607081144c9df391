// The forward pass on an NVIDIA GPU.
#pragma once

#include <map>
#include <memory>

#include "lowp/kernels/cuda/attention.h"
#include "lowp/models/cuda_batch.h"
#include "lowp/models/cuda_choice.h"
#include "lowp/models/cuda_weights.h"
#include "lowp/models/cuda_workspace.h"
#include "lowp/models/runner.h"

namespace lowp::models {

/// Steps in which every sequence has one token are recorded as graphs for some numbers of sequences and replayed; their
/// logits are computed along. See docs/kernels/gpu-model.md.
class CudaRunner final : public Runner {
 public:
  /// Throws Error: unsupported for what the device does not compute, io where it has no room.
  CudaRunner(const Config& config, const LoadOptions& options, WeightSource& source);
  ~CudaRunner() override;

  void forward(std::span<const Chunk> batch) override;
  void logits(std::span<const std::int64_t> rows, std::span<float> out) override;
  std::vector<std::int32_t> likeliest(std::span<const std::int64_t> rows, std::int64_t limit) override;
  std::vector<std::int32_t> choose(std::span<const TokenChoice> choices, std::int64_t limit);
  std::vector<TokenScore> score(std::span<const TokenQuestion> questions, std::int64_t limit);
  const std::shared_ptr<KvPool>& kv_pool() const override { return kv_pool_; }
  std::string memory_plan() const override;

 private:
  void reserve(std::int64_t rows);
  std::size_t kept_for_steps() const;
  std::int64_t graph_rows(std::span<const Chunk> batch) const;
  void layers(const CudaStep& step);
  void head(const void* hidden, std::int64_t rows);
  struct Residual;
  void attention(const CudaLayer& layer, std::int64_t index, const CudaStep& step, Residual& residual);
  void mlp(const CudaLayer& layer, const CudaStep& step, Residual& residual);
  kernels::cuda::AddNormTask norm(const kernels::cuda::Memory& weight, std::int64_t rows) const;
  kernels::cuda::AddNormTask norm(const kernels::cuda::Memory& weight, std::int64_t rows, Residual& residual) const;
  void output_norm(const kernels::cuda::Memory& weight, std::int64_t rows);
  std::span<const std::int32_t> find_logits(std::span<const std::int64_t> rows);
  /// For all but products, behind which it comes.
  kernels::cuda::StreamHandle stream() { return products_.stream(); }

  const Config config_;
  const ops::Device device_;
  const std::shared_ptr<kernels::cuda::Stream> stream_;
  ops::CudaProducts products_;
  const std::size_t free_at_first_;
  const CudaWeights weights_;
  const kernels::cuda::KvPageLayout layout_;
  const ops::AttentionMode attention_;
  const bool invariant_;
  const bool pads_;  // a step may have rows of nobody
  CudaBatch batch_;
  kernels::cuda::Memory cos_, sin_, window_cos_, window_sin_;  // f32 [positions, head_dim / 2]
  kernels::cuda::Memory memory_;                               // of the workspace
  CudaWorkspace workspace_;
  std::shared_ptr<KvPool> kv_pool_;
  // Of rows whose logits are wanted: their numbers, hidden states and logits.
  kernels::cuda::Memory wanted_, hidden_, logits_, head_workspace_;
  kernels::cuda::HostMemory host_;
  CudaChoice choice_;
  std::size_t free_ = 0;                           // bytes of the device once all but steps and pages was there
  std::int64_t computed_ = 0;                      // rows whose logits the last step left in logits_, in their order
  std::map<std::int64_t, std::int32_t> gathered_;  // or rows of it whose logits are there, and where
  std::vector<std::int32_t> found_;                // what find_logits() says
  std::map<std::int64_t, kernels::cuda::Graph> graphs_;
};

}  // namespace lowp::models
