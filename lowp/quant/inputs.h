// What the inputs of a model's Linears look like on a calibration text, as far as it is asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lowp/ops/input_stats.h"

namespace lowp::quant {

/// Statistics by module; modules that share an input share the object. A module that no token reached has none.
using Inputs = std::map<std::string, std::shared_ptr<const ops::InputStats>>;

/// Runs the calibration text through a model folder or file. The modules in `grams` get Gram matrices.
using Calibrate = std::function<Inputs(const std::string& model, const std::set<std::string>& grams)>;

/// Runs the calibration when something is asked for, and no more often than memory makes necessary.
class CalibratedInputs {
 public:
  /// `calibrate` may be empty: then there is no text.
  CalibratedInputs(Calibrate calibrate, std::string model)
      : calibrate_(std::move(calibrate)), model_(std::move(model)) {}

  bool available() const { return static_cast<bool>(calibrate_); }

  /// Statistics of a module, without a Gram matrix; nullptr if the text does not reach it.
  std::shared_ptr<const ops::InputStats> find(const std::string& module);

  /// The same with a Gram matrix. `upcoming` are the modules, with the widths of their inputs, that will be asked for
  /// after this one, in order: as many of them as fit in memory are served by the same run.
  std::shared_ptr<const ops::InputStats> with_gram(const std::string& module,
                                                   const std::vector<std::pair<std::string, std::int64_t>>& upcoming);

 private:
  Calibrate calibrate_;
  std::string model_;
  std::optional<Inputs> plain_;
  Inputs grams_;
  std::set<std::string> asked_;  // modules that the last run with Gram matrices was about
};

}  // namespace lowp::quant
