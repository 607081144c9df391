// Fitting the table of a codebook format by one-dimensional k-means.
#pragma once

#include <vector>

#include "lowp/ops/cast.h"

namespace lowp::quant {

/// 16 table entries for x [m, k]: values are divided by their group's scale, centroids start at the farthest points and
/// move to the means of their members for up to 200 rounds (torchao-spec 5.9). Deterministic.
std::vector<float> fit_codebook(const TensorView& x, const formats::BlockFormat& format,
                                const ops::CastOptions& options);

}  // namespace lowp::quant
