// f32 matrix multiplication by blocked dot products, one variant for each instruction set.
#pragma once

#include <cstdint>

namespace lowp::kernels::cpu {

/// y[r, j] = sum over i of x[r, i] * w[j, i] for `rows` rows of x (stride k) and `cols` rows of w (stride k); y has
/// stride ldy. Each sum runs over 8 lanes in ascending order and a fixed tree, whatever rows and cols are: results do
/// not depend on the batch.
using Matmul = void (*)(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y,
                        std::int64_t ldy);

struct MatmulKernels {
  const char* name;
  Matmul matmul;
};

extern const MatmulKernels kMatmulPortable, kMatmulAvx2;

/// The best variant that this CPU runs.
const MatmulKernels& matmul_kernels();

}  // namespace lowp::kernels::cpu
