#include "lowp/quant/method.h"

#include <algorithm>
#include <array>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/quant/hadamard.h"

namespace lowp::quant {
namespace {

constexpr std::array<std::string_view, 4> kPreparations = {"none", "hadamard", "smoothquant", "awq"};

std::optional<Preparation> find_preparation(std::string_view word) {
  const auto* at = std::find(kPreparations.begin() + 1, kPreparations.end(), word);
  if (at == kPreparations.end()) return std::nullopt;
  return static_cast<Preparation>(at - kPreparations.begin());
}

}  // namespace

std::vector<std::string> method_names() {
  std::vector<std::string> names = algorithm_names();
  names.insert(names.end(), kPreparations.begin() + 1, kPreparations.end());
  return names;
}

Method find_method(const std::vector<std::string>& words) {
  std::optional<Preparation> preparation;
  std::optional<Algorithm> algorithm;
  const std::vector<std::string> known = algorithm_names();
  for (const std::string& word : words) {
    if (const auto found = find_preparation(word)) {
      if (preparation) fail(ErrorCode::usage, "more than one preparation of the model: '{}'", word);
      preparation = found;
    } else if (std::find(known.begin(), known.end(), word) != known.end()) {
      if (algorithm) fail(ErrorCode::usage, "more than one way to round: '{}'", word);
      algorithm = find_algorithm(word);
    } else {
      fail(ErrorCode::usage, "unknown algorithm '{}'{}; known: {}", word, did_you_mean(word, method_names()),
           fmt::join(method_names(), ", "));
    }
  }
  const Preparation chosen = preparation.value_or(Preparation::none);
  return {chosen, algorithm.value_or(chosen == Preparation::awq ? Algorithm::mse : Algorithm::absmax)};
}

Rewriting prepare(Preparation preparation, const checkpoint::Checkpoint& checkpoint, CalibratedInputs& inputs,
                  const FormatOf& format_of) {
  if (preparation == Preparation::hadamard) return hadamard(checkpoint);
  if (!inputs.available())
    fail(ErrorCode::usage, "{} needs a calibration text (--calibrate FILE)",
         kPreparations[static_cast<std::size_t>(preparation)]);
  return preparation == Preparation::awq ? awq(checkpoint, inputs, format_of) : smoothquant(checkpoint, inputs);
}

}  // namespace lowp::quant
