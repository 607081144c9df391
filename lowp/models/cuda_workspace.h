// Device memory of a forward pass on a GPU, one block.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/attention.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/models/cuda_weights.h"

namespace lowp::models {

struct CudaWorkspace {
  std::int64_t rows = 0;  // of a step that there is room for
  // bf16
  void* stream = nullptr;     // [rows, hidden]: residual stream,
  void* next = nullptr;       // likewise: and where it goes when something is added, by turns
  void* normed = nullptr;     // [rows, hidden]: input of a block; at the end the hidden states
  void* qkv = nullptr;        // [rows, (heads + 2 kv_heads) head_dim]
  void* mixed = nullptr;      // [rows, heads * head_dim]
  void* out = nullptr;        // [rows, hidden]: output of a block
  void* gate_up = nullptr;    // [rows, 2 * intermediate]
  void* gated = nullptr;      // [rows, intermediate]
  void* product = nullptr;    // what Linears need
  void* experts = nullptr;    // what experts need
  void* attention = nullptr;  // what attend_decode needs
  std::size_t bytes = 0;

  /// The parts for so many rows from `base` on, which may be null to know the bytes.
  CudaWorkspace(const Config& config, const CudaWeights& weights, const kernels::cuda::KvPageLayout& pages,
                std::int64_t rows, std::byte* base);
};

}  // namespace lowp::models
