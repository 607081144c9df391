// Casts on a CUDA GPU.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// For every format (or the selected ones) and, for MX, both common scale modes: along rows (cast), with tiled scales
/// (cast_tiled), along columns (cast_n), both from one read (cast_both), rounded by chance (cast_stochastic), and for
/// two levels with the largest magnitude in a launch of its own (amax+cast) or the same (amax_and_cast); ops
/// "<op>:<dtype>[:<scaling>]", [m, k].
std::vector<Case> cuda_cast_cases(const Selection& selection);

/// Experts [E, 8192, 5120] cast along N (m = E): one launch ("experts"), and what it takes without such a kernel
/// ("experts_2d": all as one matrix, then a copy to each expert's place).
std::vector<Case> cuda_expert_cases(const Selection& selection);

}  // namespace lowp::bench
