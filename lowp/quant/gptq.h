// GPTQ (Frantar et al., 2023): columns are rounded one after another, and those to come make up for the error so far.
#pragma once

#include "lowp/ops/cast.h"
#include "lowp/ops/input_stats.h"

namespace lowp::quant {

/// Quantizes x [m, k] so that x * input changes little on the inputs whose Gram matrix `inputs` has. Group parameters
/// are searched first, on the weights as they are (quant/mse_search.h, errors weighted by the mean square of the
/// inputs), and stay; columns follow in descending order of that mean square, so that groups remain neighbours and
/// every dialect can hold the result. Damping is 1 % of the mean of the diagonal. Throws as begin_search().
QuantizedMatrix gptq(const TensorView& x, const formats::BlockFormat& format, const ops::InputStats& inputs,
                     const ops::CastOptions& options);

}  // namespace lowp::quant
