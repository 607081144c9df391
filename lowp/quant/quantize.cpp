#include "lowp/quant/quantize.h"

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/quant/codebook.h"
#include "lowp/quant/hqq.h"

namespace lowp::quant {

std::vector<std::string> algorithm_names() { return {"absmax", "hqq"}; }

Algorithm find_algorithm(const std::string& name) {
  const auto names = algorithm_names();
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Algorithm>(i);
  fail(ErrorCode::usage, "unknown algorithm '{}'{}; known: {}", name, did_you_mean(name, names),
       fmt::join(names, ", "));
}

std::string refusal(Algorithm algorithm, const formats::BlockFormat& format) {
  if (algorithm == Algorithm::absmax) return "";
  const bool scale_only = format.rule == formats::Rule::symmetric && format.scale_in_input_dtype;
  if (format.rule == formats::Rule::tinygemm || scale_only) return "";
  return "hqq refines int<B>_g<G>, int<B>_channel and int4_g<G>_float, not " + format.name;
}

QuantizedMatrix quantize(const TensorView& x, const formats::BlockFormat& format, Algorithm algorithm,
                         const ops::CastOptions& options) {
  if (const std::string wrong = refusal(algorithm, format); !wrong.empty())
    fail(ErrorCode::usage, "{}: {}", options.name, wrong);
  if (format.rule == formats::Rule::codebook)
    return ops::quantize(x, format, options, fit_codebook(x, format, options));
  if (format.hqq || (algorithm == Algorithm::hqq && format.rule == formats::Rule::tinygemm))
    return hqq_zero_point(x, format, options);
  if (algorithm == Algorithm::hqq) return hqq_scale(x, format, options);
  return ops::quantize(x, format, options);
}

}  // namespace lowp::quant
