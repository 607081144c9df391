// A decoder's weights on a GPU.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lowp/kernels/cuda/transfer.h"
#include "lowp/models/cuda_projections.h"
#include "lowp/models/weights.h"
#include "lowp/ops/experts_cuda.h"

namespace lowp::models {

struct CudaLayer {
  kernels::cuda::Memory attention_norm, mlp_norm;                // f32 [hidden], before
  kernels::cuda::Memory attention_output_norm, mlp_output_norm;  // after, in architectures with output norms
  kernels::cuda::Memory q_norm, k_norm;                          // f32 [head_dim]
  kernels::cuda::Memory sinks;                                   // f32 [heads], in architectures with attention sinks
  std::optional<CudaProjections> qkv, o;
  std::optional<CudaProjections> gate_up, down;  // dense layers
  std::optional<ops::CudaExperts> experts;       // sparse layers
};

struct CudaWeights {
  kernels::cuda::Memory embedding;  // bf16 [vocab, hidden]
  std::vector<CudaLayer> layers;
  kernels::cuda::Memory norm;
  std::optional<CudaProjections> head;

  /// Throws Error: unsupported for what the device does not compute, io where it has no room.
  CudaWeights(const Config& config, const LoadOptions& options, WeightSource& source);

  /// Calls `see` with every group of Linears, but for experts.
  template <typename See>
  void each(const See& see) const {
    for (const CudaLayer& layer : layers)
      for (const auto* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
        if (*group) see(**group);
    see(*head);
  }
};

}  // namespace lowp::models
