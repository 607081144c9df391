#define LOWP_ISA amx
#define LOWP_HAS_BF16
#define LOWP_HAS_AMX
#include "lowp/kernels/cpu/gemm/simd_avx512.h"
// The instructions' header comes first.
#include "lowp/kernels/cpu/gemm/amx_body.h"
#include "lowp/kernels/cpu/gemm/rows_body.h"

namespace lowp::kernels::cpu {
namespace amx {

// quantize_rows(), and the rows' parts of PackedRows::tiles.
void quantize_rows_and_tiles(const RowsTask& task, const float* x, std::int64_t row, std::int64_t rows,
                             float* scratch) {
  quantize_rows(task, x, row, rows, scratch);
  PackedRows& out = *task.out;
  if (out.tiles.empty()) return;
  for (std::int64_t r = row; r < row + rows; ++r) {
    const std::uint8_t* from = out.data.data() + r * out.stride;
    std::uint8_t* to = out.tiles.data() + r / kTileRows * kTileRows * out.stride + r % kTileRows * 64;
    for (std::int64_t at = 0; at < out.stride; at += 64, to += 64 * kTileRows)
      _mm512_store_si512(to, _mm512_loadu_si512(from + at));
  }
}

}  // namespace amx

const GemmKernels kGemmAmx = {"amx", Arithmetic::bf16, true, amx::panels, amx::quantize_rows_and_tiles};

}  // namespace lowp::kernels::cpu
