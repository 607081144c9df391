// Pages about a model's layers: what formats they have, what their values look like, what quantizing did to them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/eval/perplexity.h"

namespace lowp::report {

/// How often values fall into bins of one binary order of magnitude of their size over a root mean square: bin i is
/// [2^(i - kZero), 2^(i - kZero + 1)); the first takes all below, zeros too, the last all above.
class Histogram {
 public:
  static constexpr int kBins = 20, kZero = 14;

  /// Adds values; `rms` is what they are measured against.
  void add(std::span<const float> values, double rms);
  /// Shares of all values, in the order of bins.
  std::vector<double> shares() const;
  /// The bins' lower bounds.
  static std::vector<double> bounds();

 private:
  std::array<std::uint64_t, kBins> counts_{};
};

/// One number for each Linear, by module name: a heat map with a column for each layer of the model and a row for what
/// its modules are called in a layer; experts are averaged. "" if none is in a layer.
std::string layer_map(const std::string& title, const std::string& unit, const std::map<std::string, double>& values,
                      double low, double high);

/// `lowp inspect --html`: which format stands where, bits a weight, and histograms of the weights as they are decoded,
/// by the name of modules in a layer. `progress` is told of shares of the work. Throws Error.
std::string inspect_page(const checkpoint::Checkpoint& model, const std::string& about,
                         const std::function<void(double)>& progress);

/// `lowp eval --html`: the result's numbers, the map of output SQNR, and histograms of the inputs of Linears.
std::string eval_page(const std::string& model, const std::string& against, const eval::PerplexityResult& result,
                      const std::map<std::string, Histogram>& inputs, const std::string& about);

/// Whatever stands before the number of a layer, the number, and the rest: "mlp.experts.*.up_proj" of layer 3; nullopt
/// for modules outside of layers.
struct LayerName {
  std::int64_t layer = 0;
  std::string part;
};
std::optional<LayerName> layer_name(const std::string& module);

}  // namespace lowp::report
