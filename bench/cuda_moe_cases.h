// A layer's router and experts on a CUDA GPU.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// ops::CudaExperts in the sizes of Qwen3-30B-A3B and Mixtral 8x7B, for m rows (1, 8, 64, 1024, 8192) that choose at
/// random, n the width of an expert and k the hidden size. Up to 64 rows in graphs of calls whose rows choose anew,
/// against reading the weights of the experts that so many rows choose if they choose evenly; beyond, against the
/// products' rate.
std::vector<Case> cuda_moe_cases(const Selection& selection);

}  // namespace lowp::bench
