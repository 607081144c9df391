// The casts in vectors, one variant for each instruction set; bit-identical to kernels/ref.
#pragma once

#include <vector>

#include "lowp/kernels/kernel.h"

namespace lowp::kernels::cpu {

extern const CastKernels kCastAvx512, kCastAvx2;

/// The variants that this CPU runs, the best first.
std::vector<const CastKernels*> cast_kernels();

}  // namespace lowp::kernels::cpu
