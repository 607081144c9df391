// Casts on the CPU: quantizing and dequantizing a matrix.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// "cast:<dtype>" and "dequantize:<dtype>" of every format of the demo's recipes (or the selected ones), [m, k].
std::vector<Case> cast_cases(const Selection& selection);

}  // namespace lowp::bench
