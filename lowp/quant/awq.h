// AWQ (Lin et al., 2024): channels with large inputs are made larger in the weight, where they lose less to rounding.
#pragma once

#include <functional>
#include <optional>

#include "lowp/formats/block.h"
#include "lowp/quant/channel_scales.h"

namespace lowp::quant {

/// The format that a module's weight will have; nullopt: it stays in high precision.
using FormatOf = std::function<std::optional<formats::BlockFormat>(const std::string& module)>;

/// Factors (root mean square of the input)^a, a on a grid from 0 to 1, that leave the least squared error of a site's
/// outputs under round-to-nearest, given the Gram matrices of their inputs. Sites of which no reader is quantized or
/// without statistics stay.
Rewriting awq(const checkpoint::Checkpoint& checkpoint, CalibratedInputs& inputs, const FormatOf& format_of);

}  // namespace lowp::quant
