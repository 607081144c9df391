// Group parameters by search: the range of each group is narrowed or widened to where its squared error is least.
#pragma once

#include <span>
#include <vector>

#include "lowp/formats/quantize.h"
#include "lowp/ops/cast.h"

namespace lowp::quant {

/// "" if the groups of this format lie in one row and have scales that can be searched, else the reason why not.
std::string search_refusal(const formats::BlockFormat& format);

/// The parameters of all groups of one row [k]. Each group takes the fraction of its own range, 0.45 to 1.5, that
/// leaves the least sum of importance * error^2, the format's own rule being one of the candidates; `importance` is
/// [k], or empty for ones. Groups of a super-block are searched one by one and then put on its grid.
std::vector<formats::GroupParams> search_row(const formats::BlockFormat& format, formats::Elem input,
                                             formats::Scaling scaling, float tensor_scale, std::span<const float> row,
                                             std::span<const float> importance);

/// An empty result for x [m, k] with its tensor scale. Throws Error(bad_input) naming the first NaN
/// or infinity, Error(unsupported) as ops::allocate.
QuantizedMatrix begin_search(const TensorView& x, const formats::BlockFormat& format, const ops::CastOptions& options);

/// Quantizes x [m, k] with the parameters of search_row(). `importance` is [k] or empty.
QuantizedMatrix mse_search(const TensorView& x, const formats::BlockFormat& format, std::span<const float> importance,
                           const ops::CastOptions& options);

}  // namespace lowp::quant
