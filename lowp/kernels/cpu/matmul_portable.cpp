#define LOWP_ISA portable
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/kernels/cpu/matmul_body.h"

namespace lowp::kernels::cpu {

void matmul_portable(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy) {
  portable::matmul(x, rows, w, cols, k, y, ldy);
}

}  // namespace lowp::kernels::cpu
