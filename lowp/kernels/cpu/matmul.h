// f32 matrix multiplication by blocked dot products, one variant for each instruction set.
#pragma once

#include <cstdint>

namespace lowp::kernels::cpu {

/// y[r, j] = sum over i of x[r, i] * w[j, i] for `rows` rows of x (stride k) and `cols` rows of w (stride k); y has stride ldy.
/// Each sum runs over 8 lanes in ascending order and a fixed tree, whatever rows and cols are: results do not depend on the
/// batch.
using MatmulKernel = void (*)(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy);

void matmul_portable(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy);
void matmul_avx2(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy);

/// The best variant that this CPU runs.
MatmulKernel matmul_kernel();

}  // namespace lowp::kernels::cpu
