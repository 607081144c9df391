// Mixture of experts on a GPU. The host chooses the experts, so every such layer waits for its router's scores; each
// expert multiplies its rows together, and a row gains its experts' outputs in the order of their numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "lowp/kernels/cuda/transfer.h"
#include "lowp/models/cuda_weights.h"
#include "lowp/models/routing.h"

namespace lowp::models {

class CudaExperts {
 public:
  explicit CudaExperts(const Config& config) : config_(config) {}

  /// out bf16 [rows, hidden] = the weighted sums of what the experts of `layer` make of x [rows, hidden]. `workspace`
  /// serves the layer's Linears for so many rows.
  void run(const CudaLayer& layer, const void* x, std::int64_t rows, void* out, void* workspace,
           const kernels::cuda::Stream& stream);

  /// Device memory for steps of so many rows.
  std::size_t bytes(std::int64_t rows) const;

 private:
  /// Of the device's block and of the host's, beginning at `device` and `host`.
  struct Places {
    void *scores, *visitors, *gate_up, *gated, *outputs;
    std::int32_t *visit_rows, *visits;
    float* weights;
    std::uint16_t* host_scores;
    std::int32_t *host_visit_rows, *host_visits;
    float* host_weights;
    std::size_t device_bytes, host_bytes;
  };
  Places place(std::int64_t rows) const;
  void choose(std::int64_t rows, const Places& p);
  void multiply(const CudaLayer& layer, const Places& p, void* workspace, kernels::cuda::StreamHandle stream) const;

  const Config config_;
  kernels::cuda::Memory memory_;
  kernels::cuda::HostMemory host_;
  std::vector<float> scores_;
  std::vector<Choice> choices_;
  std::vector<std::int64_t> first_;  // visit of each expert, and one more
};

}  // namespace lowp::models
