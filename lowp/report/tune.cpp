#include "lowp/report/tune.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <memory>

#include "lowp/base/error.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/eval/perplexity.h"
#include "lowp/quant/rules.h"
#include "lowp/report/allocation.h"

namespace lowp::report {
namespace {

constexpr int kSearchSteps = 8;  // of a budget for max_kl
constexpr int kFrontierPoints = 8;

// Experts of a layer go together: their number becomes a star.
std::string pattern_of(const std::string& module) {
  constexpr std::string_view kExperts = ".experts.";
  const auto at = module.find(kExperts);
  if (at == std::string::npos) return module;
  const std::size_t begin = at + kExperts.size(), end = module.find('.', begin);
  return module.substr(0, begin) + "*" + module.substr(end);
}

class Tuner {
 public:
  Tuner(const TuneRequest& request, const text::Tokenizer& tokenizer)
      : request_(request),
        tokenizer_(tokenizer),
        checkpoint_(checkpoint::resolve_model(request.model)),
        original_(request.model, request.load),
        model_(request.model, request.load) {
    if (const checkpoint::Dialect* dialect = checkpoint::detect_dialect(checkpoint_))
      fail(ErrorCode::unsupported, "{}: is quantized already ({})", checkpoint_.path(), dialect->name());
    for (const formats::Recipe& recipe : request.recipes) {
      if (recipe.activation && recipe.activation->scope == formats::Scope::calibrated)
        fail(ErrorCode::unsupported, "{}: its activation scale comes from calibration, which tuning does not do",
             recipe.name);
      report_.recipes.push_back(recipe.name);
    }
    report_.model = request.model;
    find_parts();
  }

  TuneReport run() {
    steps_ = report_.parts.size() * request_.recipes.size() + request_.recipes.size() +
             (request_.frontier ? kFrontierPoints : 0) + (request_.max_kl ? kSearchSteps : 1);
    measure_parts();
    for (std::size_t r = 0; r < request_.recipes.size(); ++r)
      report_.uniform.push_back(measure(report_.recipes[r], std::vector<std::size_t>(report_.parts.size(), r)));
    check_budget();
    const auto [point, chosen] = request_.max_kl ? least_budget() : within(*request_.budget_bits);
    report_.chosen = point;
    for (std::size_t p = 0; p < chosen.size(); ++p) report_.parts[p].chosen = chosen[p];
    if (request_.frontier) measure_frontier();
    return std::move(report_);
  }

 private:
  using Choice = std::vector<std::size_t>;  // recipe by part

  void find_parts() {
    std::map<std::string, std::size_t> by_key;
    for (const checkpoint::StoredTensor& tensor : checkpoint_.tensors()) {
      const std::string& name = tensor.entry.name;
      if (name.find(".experts.") != std::string::npos && tensor.entry.shape.size() == 3)
        fail(ErrorCode::unsupported, "{}: tensor '{}': experts stored in one tensor cannot be tuned",
             checkpoint_.path(), name);
      constexpr std::string_view kWeight = ".weight";
      if (!name.ends_with(kWeight) || tensor.entry.shape.size() != 2) continue;
      const std::string module = name.substr(0, name.size() - kWeight.size());
      if (quant::role_of(module) != quant::Role::linear || !model_.find_linear(module)) continue;
      const auto [at, added] = by_key.emplace(quant::fused_name(pattern_of(module)), report_.parts.size());
      if (added) report_.parts.emplace_back();
      TunePart& part = report_.parts[at->second];
      part.modules.push_back(module);
      part.weights += static_cast<double>(element_count(tensor.entry.shape));
      if (std::find(part.patterns.begin(), part.patterns.end(), pattern_of(module)) == part.patterns.end())
        part.patterns.push_back(pattern_of(module));
    }
    if (report_.parts.empty()) fail(ErrorCode::unsupported, "{}: no layer can be quantized", checkpoint_.path());
  }

  // A module of the model under a recipe.
  ops::Linear quantized(const std::string& module, const formats::Recipe& recipe) const {
    ops::CastOptions options;
    options.name = module;
    const QuantizedMatrix weight =
        quant::quantize(checkpoint_.find(module + ".weight")->view(), recipe.weight, request_.algorithm, options);
    const checkpoint::StoredTensor* bias = checkpoint_.find(module + ".bias");
    return {weight, recipe, std::nullopt, bias ? std::optional(bias->view()) : std::nullopt, request_.load.compute};
  }

  double bits_of(const std::string& module, const formats::Recipe& recipe) const {
    const checkpoint::TensorEntry& entry = checkpoint_.find(module + ".weight")->entry;
    return formats::bits_per_weight(recipe.weight, entry.shape[0], entry.shape[1], element_of(entry.dtype)) *
           static_cast<double>(element_count(entry.shape));
  }

  eval::Divergence divergence() {
    eval::PerplexityOptions options;
    options.tokens = request_.tokens;
    return *eval::perplexity(model_, &original_, false, tokenizer_, request_.text, options).kl;
  }

  // Puts a recipe in place of some modules; what stood there comes back.
  std::vector<ops::Linear> put(const TunePart& part, const formats::Recipe& recipe) {
    std::vector<ops::Linear> before;
    for (const std::string& module : part.modules)
      before.push_back(model_.exchange_linear(module, quantized(module, recipe)));
    return before;
  }
  void put_back(const TunePart& part, std::vector<ops::Linear> before) {
    for (std::size_t i = 0; i < before.size(); ++i) model_.exchange_linear(part.modules[i], std::move(before[i]));
  }

  void measure_parts() {
    for (TunePart& part : report_.parts)
      for (const formats::Recipe& recipe : request_.recipes) {
        tell(part.patterns.front() + " in " + recipe.name);
        std::vector<ops::Linear> before = put(part, recipe);
        part.kl.push_back(divergence().mean);
        put_back(part, std::move(before));
        double bits = 0;
        for (const std::string& module : part.modules) bits += bits_of(module, recipe);
        part.bits.push_back(bits);
      }
  }

  double bits(const Choice& choice) const {
    double bits = 0, weights = 0;
    for (std::size_t p = 0; p < choice.size(); ++p) {
      bits += report_.parts[p].bits[choice[p]];
      weights += report_.parts[p].weights;
    }
    return bits / weights;
  }

  TunePoint measure(const std::string& name, const Choice& choice) {
    tell(name);
    std::vector<std::vector<ops::Linear>> before;
    for (std::size_t p = 0; p < choice.size(); ++p)
      before.push_back(put(report_.parts[p], request_.recipes[choice[p]]));
    const eval::Divergence kl = divergence();
    for (std::size_t p = 0; p < choice.size(); ++p) put_back(report_.parts[p], std::move(before[p]));
    return {name, bits(choice), kl.mean, kl.stderr_};
  }

  Choice allocate(double budget) const {
    std::vector<std::vector<Option>> options(report_.parts.size());
    double weights = 0;
    for (std::size_t p = 0; p < options.size(); ++p) {
      weights += report_.parts[p].weights;
      for (std::size_t r = 0; r < request_.recipes.size(); ++r)
        options[p].push_back({report_.parts[p].bits[r], report_.parts[p].kl[r]});
    }
    return allocate_bits(options, budget * weights * (1 + 1e-9));
  }

  // The best that was found within a budget.
  std::pair<TunePoint, Choice> within(double budget) {
    Choice choice = allocate(budget);
    TunePoint point = measure(fmt::format("mixed, {:.3f} bits", budget), choice);
    for (std::size_t r = 0; r < report_.uniform.size(); ++r)
      if (report_.uniform[r].bits_per_weight <= budget && report_.uniform[r].kl < point.kl) {
        point = report_.uniform[r];
        choice.assign(report_.parts.size(), r);
      }
    return {point, choice};
  }

  std::pair<double, double> range() const {
    const auto [low, high] = std::minmax_element(
        report_.uniform.begin(), report_.uniform.end(),
        [](const TunePoint& a, const TunePoint& b) { return a.bits_per_weight < b.bits_per_weight; });
    return {low->bits_per_weight, high->bits_per_weight};
  }

  void check_budget() const {
    const double least = range().first;
    if (request_.budget_bits && *request_.budget_bits < least)
      fail(ErrorCode::usage, "a budget of {} bits a weight: the cheapest of the formats takes {:.3f}",
           *request_.budget_bits, least);
  }

  std::pair<TunePoint, Choice> least_budget() {
    auto [low, high] = range();
    std::pair<TunePoint, Choice> best = within(high);
    if (best.first.kl > *request_.max_kl)
      fail(ErrorCode::usage, "a KL of {}: the best that these formats reach on the text is {:.6f}", *request_.max_kl,
           best.first.kl);
    for (int step = 1; step < kSearchSteps; ++step) {
      const double middle = (low + high) / 2;
      std::pair<TunePoint, Choice> found = within(middle);
      if (found.first.kl > *request_.max_kl) {
        low = middle;
      } else {
        high = middle;
        best = std::move(found);
      }
    }
    return best;
  }

  void measure_frontier() {
    const auto [low, high] = range();
    for (int i = 0; i < kFrontierPoints; ++i)
      report_.frontier.push_back(within(low + (high - low) * i / (kFrontierPoints - 1)).first);
  }

  void tell(const std::string& what) {
    if (request_.progress)
      request_.progress(std::min(1.0, static_cast<double>(done_++) / static_cast<double>(steps_)), what);
  }

  const TuneRequest& request_;
  const text::Tokenizer& tokenizer_;
  checkpoint::Checkpoint checkpoint_;
  models::Model original_, model_;  // model_: whose Linears are exchanged
  TuneReport report_;
  std::size_t done_ = 0, steps_ = 1;
};

}  // namespace

TuneReport tune(const TuneRequest& request, const text::Tokenizer& tokenizer) {
  return Tuner(request, tokenizer).run();
}

Json tune_rules(const TuneReport& report, quant::Algorithm algorithm) {
  Json rules = Json::array();
  for (const TunePart& part : report.parts)
    for (const std::string& pattern : part.patterns) {
      Json rule = {{"match", pattern}, {"recipe", report.recipes[part.chosen]}};
      if (algorithm != quant::Algorithm::absmax) rule["algorithm"] = quant::name(algorithm);
      rules.push_back(std::move(rule));
    }
  return rules;
}

}  // namespace lowp::report
