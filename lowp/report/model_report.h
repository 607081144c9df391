// One model in many recipes: what each costs in accuracy and brings in size and speed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/eval/multiple_choice.h"
#include "lowp/eval/perplexity.h"
#include "lowp/formats/recipe.h"
#include "lowp/report/html.h"
#include "lowp/report/machine.h"
#include "lowp/report/speed.h"

namespace lowp::report {

/// Comma-separated recipe names; "demo" stands for the list of `lowp recipes --demo`. Each once, the unquantized model
/// left out: it is always measured. Throws Error(usage) naming an unknown recipe and the nearest one.
std::vector<formats::Recipe> parse_recipes(const std::string& list);

/// Comma-separated windows: disjoint, half, rolling; each once. Throws Error(usage).
std::vector<eval::Method> parse_methods(const std::string& list);
std::string_view name(eval::Method method);

struct ModelRequest {
  std::string model;
  std::vector<formats::Recipe> recipes;
  std::string text;  // "" leaves out perplexity and KL
  std::vector<eval::Question> questions;
  std::vector<eval::Method> methods;  // KL is taken with the first
  std::int64_t context = 0;           // 0: the method's default
  bool wikitext_documents = false;    // rolling
  std::string calibration;            // text; needed by recipes with calibrated activations
  std::int64_t calibration_tokens = 8192;
  models::LoadOptions load;
  std::function<Speed(const std::string& model)> measure_speed;
  /// Share of the work that is done, and what is being done. May throw to stop: nothing is left behind.
  std::function<void(double share, const std::string& what)> progress;
};

struct ModelRow {
  std::string recipe, weight, activation;
  std::string refusal;  // why the recipe does not fit the model; then nothing below is set
  double bits_per_weight = 0;
  std::uint64_t file_bytes = 0;
  std::optional<double> sqnr;                      // mean over quantized weights, dB
  std::vector<eval::PerplexityResult> perplexity;  // one for each method
  std::optional<eval::MultipleChoiceResult> task;
  std::optional<Speed> speed;
};

struct ModelReport {
  Machine machine;
  std::string model, compute, text_path, task_path;
  std::vector<eval::Method> methods;
  std::vector<ModelRow> rows;  // the first is the unquantized model
  std::optional<Speed> again;  // of the unquantized model, after all others: did the machine stay as fast as it was?
  double seconds = 0;
};

/// Quantizes into a temporary folder, one recipe at a time, measures, removes. `text` and `task` tokens come from
/// `tokenizer`, which may be nullptr if neither (nor calibration) is asked for. Fills rows and methods. Throws Error.
ModelReport measure_model(const ModelRequest& request, const text::Tokenizer* tokenizer);

/// Two tables: accuracy and size; speed and memory. Columns that were not asked for are left out.
std::vector<Grid> grids(const ModelReport& report);
std::vector<Note> notes(const ModelReport& report);
Json to_json(const ModelReport& report);
std::string html(const ModelReport& report);

}  // namespace lowp::report
