// The forward pass on the CPU.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowp/models/model.h"
#include "lowp/models/runner.h"
#include "lowp/models/weights.h"

namespace lowp::models {

class CpuRunner final : public Runner {
 public:
  /// Takes the weights out of `source`. What they view (a mapped checkpoint) must outlive the runner.
  CpuRunner(const Config& config, const LoadOptions& options, WeightSource& source);
  ~CpuRunner() override;

  void forward(std::span<const Chunk> batch) override;
  void logits(std::span<const std::int64_t> rows, std::span<float> out) override;
  std::vector<std::int32_t> likeliest(std::span<const std::int64_t> rows, std::int64_t limit) override;
  const std::shared_ptr<KvPool>& kv_pool() const override { return kv_pool_; }

  const ops::Linear* find_linear(const std::string& module) const;
  /// All of them by module name; the head is kPackedHead.
  std::vector<std::pair<std::string, const ops::Linear*>> linears() const;
  void set_tap(Tap tap) { tap_ = std::move(tap); }

 private:
  using Layer = LayerOf<ops::Linear>;
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
  bool bf16() const { return options_.compute == formats::Elem::bf16; }
  void begin(std::span<const Chunk> batch);
  void project(std::span<const Projection> projections, std::string_view block, Rows in) const;
  void norm(std::span<const float> x, const std::vector<float>& weight, std::span<float> out) const;
  void prepare(const ops::Linear& linear, Rows in) const;
  std::span<const float> values(Rows in) const;
  void rotate_and_store(const Layer& layer, std::int64_t index);
  void plan_attention(std::span<const Chunk> batch, std::int64_t index);
  void attention(const Layer& layer, std::int64_t index, std::span<const Chunk> batch, Rows in);
  std::span<const float> gate_up(const ops::Linear& gate, const ops::Linear& up, const checkpoint::ExpertNames& names,
                                 std::string_view block, Rows in);
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

  const Config config_;
  const LoadOptions options_;
  const ops::KvLayout layout_;
  std::shared_ptr<KvPool> kv_pool_;
  struct {
    TensorView embedding;  // [vocab, hidden]; in the source's file, or in `decoded_embedding`
    Tensor decoded_embedding;
    std::vector<Layer> layers;
    std::vector<float> norm;
    std::optional<ops::Linear> head;
  } weights_;
  Tap tap_;
  std::unique_ptr<Workspace> workspace_;  // of forward(), kept from call to call
};

}  // namespace lowp::models
