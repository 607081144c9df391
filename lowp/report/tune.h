// Mixed recipes found by measuring: how much each part of a model suffers under each format, and what to give it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/formats/recipe.h"
#include "lowp/models/model.h"
#include "lowp/quant/quantize.h"
#include "lowp/text/tokenizer.h"

namespace lowp::report {

struct TuneRequest {
  std::string model;
  std::vector<formats::Recipe> recipes;  // what a part may get
  quant::Algorithm algorithm = quant::Algorithm::absmax;
  std::string text;                           // that KL is measured on
  std::int64_t tokens = 4096;                 // of the text, at most
  std::optional<double> budget_bits, max_kl;  // one of them
  bool frontier = false;                      // find a mixture for the bits of each uniform recipe too
  models::LoadOptions load;
  std::function<void(double share, const std::string& what)> progress;
};

/// A choice of recipes for the whole model and what it does.
struct TunePoint {
  std::string name;
  double bits_per_weight = 0;
  double kl = 0, kl_stderr = 0;     // of the model so quantized against the original, measured
  std::vector<std::size_t> choice;  // by part: index into TuneReport::recipes
};

/// Linears that get one recipe: those that other systems fuse, and all experts of a layer.
struct TunePart {
  std::vector<std::string> patterns;  // of module names, for a recipe file
  std::vector<std::string> modules;
  double weights = 0;            // how many
  std::vector<double> bits, kl;  // by recipe: of the part, and what it alone is expected to do to the model
  std::size_t chosen = 0;        // index into TuneReport::recipes
};

struct TuneReport {
  std::string model;
  std::vector<std::string> recipes;
  std::vector<TunePart> parts;
  TunePoint chosen;
  std::vector<TunePoint> uniform;   // the whole model in each recipe
  std::vector<TunePoint> frontier;  // chosen likewise for the bits of each of them
};

/// Finds what each part would do under each recipe, then chooses (report/allocation.h). KL of the model with one part
/// quantized is measured under few recipes, the rest follows from the error of the part's outputs, which KL is
/// proportional to: KL of one part in many bits is less than what the rounding of intermediates makes of any change.
/// The choice is measured; unless it is better on the text, beyond two standard errors, than the best single recipe
/// within the budget, that is taken instead. With max_kl the least budget is sought whose measured KL is at most that.
/// Throws Error(usage) for a budget below what the cheapest recipes take and a KL that none reaches, Error(unsupported)
/// for recipes with calibrated activations or that do not fit a layer, and for models that are quantized or store
/// experts in one tensor. Keeps 4 bytes of every token of the vocabulary for each token of the text.
TuneReport tune(const TuneRequest& request, const text::Tokenizer& tokenizer);

/// The recipe file: rules for `lowp quantize --recipe`.
Json tune_rules(const TuneReport& report, quant::Algorithm algorithm);

/// A page with size against KL of all recipes and mixtures, and who got what.
std::string tune_page(const TuneReport& report, const std::string& about);

}  // namespace lowp::report
