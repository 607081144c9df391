// The words of `lowp quantize --algorithm`: what is done to the model before, and how weights are rounded then.
#pragma once

#include <string>
#include <vector>

#include "lowp/quant/awq.h"
#include "lowp/quant/quantize.h"

namespace lowp::quant {

/// Changes to the float model that leave what it computes as it is.
enum class Preparation { none, hadamard, smoothquant, awq };

struct Method {
  Preparation preparation = Preparation::none;
  Algorithm algorithm = Algorithm::absmax;
};

/// At most one preparation and one algorithm, by name ("awq", "gptq"); awq alone rounds by mse, as its authors do, the
/// others by absmax. Throws Error(usage) naming the nearest.
Method find_method(const std::vector<std::string>& words);

/// "absmax, hqq, ..., hadamard, ...".
std::vector<std::string> method_names();

/// What the preparation does to a checkpoint. Throws Error(usage) if it needs a calibration text and there is none.
Rewriting prepare(Preparation preparation, const checkpoint::Checkpoint& checkpoint, CalibratedInputs& inputs,
                  const FormatOf& format_of);

}  // namespace lowp::quant
