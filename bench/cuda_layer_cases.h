// What stands between a decoder's products on a CUDA GPU.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// The kernels of kernels/cuda/layers.h in the sizes of Llama 3.1 8B, for m rows (1 and 128), in graphs of calls over
/// other rows each, against reading memory. A call begins while its predecessor ends.
std::vector<Case> cuda_layer_cases(const Selection& selection);

}  // namespace lowp::bench
