// A float matrix into a block format by an algorithm: the plain cast, or one that looks for better parameters.
#pragma once

#include <string>
#include <vector>

#include "lowp/ops/cast.h"
#include "lowp/ops/input_stats.h"

namespace lowp::quant {

/// How a weight gets its group parameters and codes.
enum class Algorithm {
  absmax,  // the format's own rule, each value to the nearest code
  hqq,     // quant/hqq.h
  mse,     // quant/mse_search.h
  gptq,    // quant/gptq.h
};

/// By name; throws Error(usage) naming the nearest.
Algorithm find_algorithm(const std::string& name);
std::string name(Algorithm algorithm);
std::vector<std::string> algorithm_names();

/// "" if the algorithm can make this format, else the reason why not. HQQ refines formats with a float zero point and
/// symmetric integers in groups (scale only); mse and gptq take what search_refusal() does not refuse.
std::string refusal(Algorithm algorithm, const formats::BlockFormat& format);

/// Quantizes x, f16, bf16 or f32 [m, k], along k. `inputs` are the statistics of what it is multiplied by, or nullptr:
/// mse weighs errors by them, gptq needs them with a Gram matrix. Errors as ops::quantize.
QuantizedMatrix quantize(const TensorView& x, const formats::BlockFormat& format, Algorithm algorithm,
                         const ops::CastOptions& options, const ops::InputStats* inputs = nullptr);

}  // namespace lowp::quant
