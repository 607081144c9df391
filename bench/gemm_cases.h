// Products on the CPU: rows of activations, quantized as the recipe says, times a packed Linear.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// "gemm" of the demo's recipes (or the selected ones): 1, 8, 32 and 512 rows (or m), n = 8192 outputs, k = 2048. Bytes
/// are those of the packed weight. Up to 8 rows are measured against reading memory, more against the peak of the
/// instruction that multiplies; the weight is one of several in turn, so that few rows find it in memory.
std::vector<Case> gemm_cases(const Selection& selection);

}  // namespace lowp::bench
