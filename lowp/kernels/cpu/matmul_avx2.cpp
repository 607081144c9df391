// Compiled with AVX2 and FMA, contraction allowed: a multiply-add rounds once.
#define LOWP_ISA avx2
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/kernels/cpu/matmul_body.h"

namespace lowp::kernels::cpu {

void matmul_avx2(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy) {
  avx2::matmul(x, rows, w, cols, k, y, ldy);
}

}  // namespace lowp::kernels::cpu
