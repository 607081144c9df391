// The casts in vectors, one variant for each instruction set; bit-identical to kernels/ref.
#pragma once

#include "lowp/kernels/cpu/isa.h"
#include "lowp/kernels/kernel.h"

namespace lowp::kernels::cpu {

extern const CastKernels kCastAvx512, kCastAvx2;

/// The variant for an instruction level; nullptr where there is none and the oracle serves.
const CastKernels* cast_kernels(Isa level);

}  // namespace lowp::kernels::cpu
