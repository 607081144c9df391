// A float matrix into a block format by an algorithm: the plain cast, or one that looks for better parameters.
#pragma once

#include <string>
#include <vector>

#include "lowp/ops/cast.h"

namespace lowp::quant {

/// How group parameters are found.
enum class Algorithm { absmax, hqq };

/// "absmax" (the format's own rule) and "hqq"; throws Error(usage) naming the nearest.
Algorithm find_algorithm(const std::string& name);
std::vector<std::string> algorithm_names();

/// "" if the algorithm can make this format, else the reason why not. HQQ refines formats with a float zero point and
/// symmetric integers in groups (scale only).
std::string refusal(Algorithm algorithm, const formats::BlockFormat& format);

/// Quantizes x, f16, bf16 or f32 [m, k], along k. Errors as ops::quantize.
QuantizedMatrix quantize(const TensorView& x, const formats::BlockFormat& format, Algorithm algorithm,
                         const ops::CastOptions& options);

}  // namespace lowp::quant
