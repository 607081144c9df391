// What goes around casts on a CUDA GPU: fused front ends, the way back, small tensors.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// RMSNorm, SiLU * up and ReLU in front of casts ("rms_norm+cast", "silu+cast", "relu+cast") of [m, k], and rotated
/// heads in fp8 ("rope+cast", "rope+hadamard+cast": m tokens, n heads of k values; read twice, counted once).
std::vector<Case> cuda_front_cases(const Selection& selection);

/// Codes back to the dtype ("dequantize:<dtype>"), [m, k].
std::vector<Case> cuda_dequantize_cases(const Selection& selection);

/// Casts of 1, 2 and 4 MB of input, 64 of them (of different memory) in one graph; the limit is such a graph of copies.
std::vector<Case> cuda_small_cases(const Selection& selection);

}  // namespace lowp::bench
