// Half-quadratic quantization (Badri and Shaji, 2023) as torchao runs it: torchao-spec 5.5 and 5.7.
#pragma once

#include "lowp/ops/cast.h"

namespace lowp::quant {

/// Formats with a float zero point: the scale comes from min and max, the zero point from a proximal search.
QuantizedMatrix hqq_zero_point(const TensorView& x, const formats::BlockFormat& format,
                               const ops::CastOptions& options);

/// Symmetric integers: the scale is the least-squares one for its own codes, found by iteration.
QuantizedMatrix hqq_scale(const TensorView& x, const formats::BlockFormat& format, const ops::CastOptions& options);

}  // namespace lowp::quant
