// Choosing the next token on a CUDA GPU.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// The ways of sample_cases.h by kernels/cuda/sample.h for m rows (1 and 64) of 128256 logits (or the selection's n),
/// "penalties" with 1000 edited ids, and "scores" with 20 likeliest ids; in graphs, logits in the second-level cache as
/// the head leaves them. The limit is reading the logits once.
std::vector<Case> cuda_sample_cases(const Selection& selection);

}  // namespace lowp::bench
