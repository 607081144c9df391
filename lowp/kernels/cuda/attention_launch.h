// The kernels behind attention.h, by the type and head dimension of the cache.
#pragma once

#include "lowp/kernels/cuda/attention.h"

namespace lowp::kernels::cuda {

/// Of a task that has been checked.
using LaunchAttention = void (*)(const AttentionTask& task, StreamHandle stream);

/// A row of the table of kernels.
struct AttentionKernels {
  formats::Elem type;
  int head_dim;
  LaunchAttention decode = nullptr, prefill = nullptr;
  LaunchAttention prefill_e4m3 = nullptr;  // null: there is none
  std::int64_t (*decode_workspace)(const AttentionTask& task) = nullptr;
};

extern const AttentionKernels kAttentionBf16[3], kAttentionE4m3[3], kAttentionInt8[3];

}  // namespace lowp::kernels::cuda
