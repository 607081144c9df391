// Sums of experts' outputs on the GPU.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// out[r] = the sum of weights[r][i] * outputs[visits[r][i]] for i in [0, top), from 0, in that order; products and
/// sums are rounded to bf16.
struct CombineTask {
  const void* outputs = nullptr;              // bf16 [any, width]
  const std::int32_t* visits = nullptr;       // [rows, top]
  const float* weights = nullptr;             // [rows, top], bf16 numbers
  void* out = nullptr;                        // bf16 [rows, width]
  std::int64_t rows = 0, top = 0, width = 0;  // width: a multiple of 8
};
void combine(const CombineTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
