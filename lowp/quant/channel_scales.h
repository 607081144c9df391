// Factors of channels that make a model easier to quantize: SmoothQuant and AWQ.
#pragma once

#include <functional>

#include "lowp/quant/inputs.h"
#include "lowp/quant/rewrite.h"
#include "lowp/quant/sites.h"

namespace lowp::quant {

/// A factor for each channel of a site, by which the readers' weights are multiplied and the maker's divided.
using ChooseFactors = std::function<std::vector<float>(const Site& site)>;

/// Gives channels that are copies of one row of the maker one factor: the geometric mean of theirs.
void share_factors(const Site& site, std::vector<float>& factors);

/// The rewriting that puts the chosen factors in place; an empty vector leaves a site alone.
Rewriting rescale(const checkpoint::Checkpoint& checkpoint, const ChooseFactors& choose);

/// SmoothQuant (Xiao et al., 2023): the square root of the largest input over the largest weight of each channel. Sites
/// without statistics (experts that the calibration text did not reach) stay.
Rewriting smoothquant(const checkpoint::Checkpoint& checkpoint, CalibratedInputs& inputs);

}  // namespace lowp::quant
