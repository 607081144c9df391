#include "lowp/quant/quantize.h"

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/quant/codebook.h"
#include "lowp/quant/gptq.h"
#include "lowp/quant/hqq.h"
#include "lowp/quant/mse_search.h"

namespace lowp::quant {

std::vector<std::string> algorithm_names() { return {"absmax", "hqq", "mse", "gptq"}; }

Algorithm find_algorithm(const std::string& name) {
  const auto names = algorithm_names();
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Algorithm>(i);
  fail(ErrorCode::usage, "unknown algorithm '{}'{}; known: {}", name, did_you_mean(name, names),
       fmt::join(names, ", "));
}

std::string name(Algorithm algorithm) { return algorithm_names()[static_cast<std::size_t>(algorithm)]; }

std::string refusal(Algorithm algorithm, const formats::BlockFormat& format) {
  if (algorithm == Algorithm::absmax) return "";
  if (algorithm == Algorithm::mse || algorithm == Algorithm::gptq) return search_refusal(format);
  const bool scale_only = format.rule == formats::Rule::symmetric && format.scale_in_input_dtype;
  if (format.rule == formats::Rule::tinygemm || scale_only) return "";
  return "hqq refines int<B>_g<G>, int<B>_channel and int4_g<G>_float, not " + format.name;
}

QuantizedMatrix quantize(const TensorView& x, const formats::BlockFormat& format, Algorithm algorithm,
                         const ops::CastOptions& options, const ops::InputStats* inputs) {
  if (const std::string wrong = refusal(algorithm, format); !wrong.empty())
    fail(ErrorCode::usage, "{}: {}", options.name, wrong);
  if (format.rule == formats::Rule::codebook)
    return ops::quantize(x, format, options, fit_codebook(x, format, options));
  if (format.hqq || (algorithm == Algorithm::hqq && format.rule == formats::Rule::tinygemm))
    return hqq_zero_point(x, format, options);
  if (algorithm == Algorithm::hqq) return hqq_scale(x, format, options);
  if (algorithm == Algorithm::mse)
    return mse_search(x, format, inputs ? inputs->mean_square() : std::vector<float>(), options);
  if (algorithm == Algorithm::gptq) {
    if (!inputs) fail(ErrorCode::usage, "{}: gptq needs a calibration text that reaches this layer", options.name);
    return gptq(x, format, *inputs, options);
  }
  return ops::quantize(x, format, options);
}

}  // namespace lowp::quant
