// Products on a CUDA GPU, beside cuBLASLt.
#pragma once

#include "bench/cases.h"
#include "bench/roofline.h"

namespace lowp::bench {

/// "gemm" (the product alone) of the demo's recipes, or the selected ones, on the layers of Llama 3.1 8B and of 70B's
/// MLP, or on [n, k], for 1 to 16384 rows, or m. The peer is cuBLASLt in the operands' type (fp8 with scales of rows
/// for 8-bit floats on both sides, int8 for integers, else bf16). Up to 64 rows: graphs of calls over so many weights
/// that none is found in the cache, against reading memory; beyond: every contender runs 0.1 s before it is timed, and
/// the order alternates, against the library's rate on a cube of 8192.
std::vector<Case> cuda_gemm_cases(const Selection& selection);

/// ReLU -> Linear as `lowp roofline` models it: products in bf16 by cuBLASLt and under the recipe, alone and with
/// casts.
Observed observe_layer(const formats::Recipe& recipe, const LayerShape& shape);

}  // namespace lowp::bench
