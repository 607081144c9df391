// The scalar oracle of the casts: loops around formats/quantize.h and nothing else.
#pragma once

#include "lowp/kernels/kernel.h"

namespace lowp::kernels::ref {

extern const CastKernels kCast;

}  // namespace lowp::kernels::ref
