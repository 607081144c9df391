#include "lowp/report/tune.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "lowp/base/error.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/eval/reference.h"
#include "lowp/quant/rules.h"
#include "lowp/report/allocation.h"

namespace lowp::report {
namespace {

constexpr int kSearchSteps = 8;           // of a budget for max_kl
constexpr int kSwaps = 8;                 // that are tried on a mixture
constexpr std::size_t kErrorWindows = 4;  // whose inputs the errors of outputs are of
constexpr double kClearKl = 0.05;  // of a whole model: so much that rounding in bf16 adds little to any part of it

// Mean and its standard error.
std::pair<double, double> mean_of(const std::vector<double>& values) {
  const double n = static_cast<double>(values.size()), mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

// Whether KL at the same positions is less by more than two standard errors of the difference.
bool clearly_less(const std::vector<double>& kl, const std::vector<double>& than) {
  std::vector<double> difference(kl.size());
  std::transform(kl.begin(), kl.end(), than.begin(), difference.begin(), std::minus<>());
  const auto [mean, error] = mean_of(difference);
  return mean < -2 * error;
}

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
        checkpoint_(checkpoint::resolve_model(request.model)),
        model_(request.model, request.load),
        reference_(model_, tokenizer, request.text, request.tokens) {
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
    const std::size_t recipes = request_.recipes.size();
    steps_ = 2 * recipes + report_.parts.size() * 4;  // until it is known
    for (std::size_t r = 0; r < recipes; ++r) {
      uniform_.push_back(measure(report_.recipes[r], Choice(report_.parts.size(), r)));
      report_.uniform.push_back(uniform_.back().point);
    }
    check_budget();
    measure_parts();
    report_.chosen = request_.max_kl ? least_budget() : within(*request_.budget_bits);
    for (std::size_t p = 0; p < report_.parts.size(); ++p) report_.parts[p].chosen = report_.chosen.choice[p];
    if (request_.frontier)
      for (const TunePoint& point : report_.uniform) report_.frontier.push_back(within(point.bits_per_weight));
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
    for (TunePart& part : report_.parts)
      for (const formats::Recipe& recipe : request_.recipes) {
        double& bits = part.bits.emplace_back();
        for (const std::string& module : part.modules) bits += bits_of(module, recipe);
      }
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

  double measure_alone(const TunePart& part, std::size_t recipe) {
    tell(part.patterns.front() + " in " + report_.recipes[recipe]);
    std::vector<ops::Linear> before = put(part, request_.recipes[recipe]);
    const double kl = mean_of(reference_.divergences(model_)).first;
    put_back(part, std::move(before));
    return kl;
  }

  // Squared errors of the outputs of each part, by recipe: of the original's inputs, one forward pass a recipe.
  std::vector<std::vector<double>> output_errors() {
    std::map<std::string, std::size_t> part_of;
    for (std::size_t p = 0; p < report_.parts.size(); ++p)
      for (const std::string& module : report_.parts[p].modules) part_of.emplace(module, p);
    std::vector<std::vector<double>> errors(report_.parts.size(), std::vector<double>(request_.recipes.size()));
    const std::size_t windows = std::min(kErrorWindows, reference_.windows().size());
    for (std::size_t r = 0; r < request_.recipes.size(); ++r) {
      tell("outputs in " + report_.recipes[r]);
      model_.set_tap([&](const std::string& module, std::span<const float> x, std::int64_t k, std::span<const float> y,
                         std::int64_t) {
        const auto part = part_of.find(module);
        if (part == part_of.end()) return;
        std::vector<float> mine(y.size());
        quantized(module, request_.recipes[r]).run(x, static_cast<std::int64_t>(x.size()) / k, mine);
        for (std::size_t i = 0; i < y.size(); ++i) {
          const double error = static_cast<double>(y[i]) - static_cast<double>(mine[i]);
          errors[part->second][r] += error * error;
        }
      });
      std::vector<models::Cache> caches;
      std::vector<models::Chunk> chunks;
      caches.reserve(windows);
      for (std::size_t w = 0; w < windows; ++w)
        chunks.push_back({reference_.windows()[w].tokens, &caches.emplace_back(model_)});
      model_.forward(chunks);
    }
    model_.set_tap(nullptr);
    return errors;
  }

  // Recipes that parts are measured in: from the most harmful on those whose KL is a third of the last one's or less,
  // as long as it stands clear of rounding; at least one.
  std::vector<std::size_t> probes() const {
    std::vector<std::size_t> order(report_.uniform.size()), chosen;
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return report_.uniform[a].kl > report_.uniform[b].kl; });
    for (const std::size_t r : order)
      if (chosen.empty() ||
          (report_.uniform[r].kl <= report_.uniform[chosen.back()].kl / 3 && report_.uniform[r].kl >= kClearKl))
        chosen.push_back(r);
    return chosen;
  }

  void measure_parts() {
    const std::vector<std::vector<double>> errors = output_errors();
    const std::vector<std::size_t> measured = probes();
    const std::size_t finest =
        static_cast<std::size_t>(std::min_element(report_.uniform.begin(), report_.uniform.end(),
                                                  [](const TunePoint& a, const TunePoint& b) { return a.kl < b.kl; }) -
                                 report_.uniform.begin());
    steps_ = done_ + report_.parts.size() * (measured.size() + 1) +
             (1 + kSwaps) * ((request_.frontier ? request_.recipes.size() : 0) + (request_.max_kl ? kSearchSteps : 1));
    for (std::size_t p = 0; p < report_.parts.size(); ++p) {
      TunePart& part = report_.parts[p];
      const std::vector<double>& error = errors[p];
      const double floor = measure_alone(part, finest);
      std::vector<double> alone;  // beside that, of the probes
      for (const std::size_t r : measured) alone.push_back(std::max(0.0, measure_alone(part, r) - floor));
      for (std::size_t r = 0; r < request_.recipes.size(); ++r) {
        const auto far = [&](std::size_t i) { return std::abs(std::log(error[r] / error[measured[i]])); };
        std::size_t nearest = 0;
        for (std::size_t i = 1; i < measured.size(); ++i)
          if (far(i) < far(nearest)) nearest = i;
        const double of = error[measured[nearest]];
        part.kl.push_back(of > 0 ? alone[nearest] * error[r] / of : 0);
      }
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

  // A choice, measured: KL at each position, too.
  struct Candidate {
    TunePoint point;
    std::vector<double> kl;
  };

  Candidate measure(const std::string& name, const Choice& choice) {
    tell(name);
    std::vector<std::vector<ops::Linear>> before;
    for (std::size_t p = 0; p < choice.size(); ++p)
      before.push_back(put(report_.parts[p], request_.recipes[choice[p]]));
    std::vector<double> kl = reference_.divergences(model_);
    for (std::size_t p = 0; p < choice.size(); ++p) put_back(report_.parts[p], std::move(before[p]));
    const auto [mean, error] = mean_of(kl);
    return {{name, bits(choice), mean, error, choice}, std::move(kl)};
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
  TunePoint within(double budget) {
    const std::string name = fmt::format("mixed, {:.3f} bits", budget);
    Candidate best = measure(name, allocate(budget));
    const Candidate* uniform = nullptr;
    for (const Candidate& candidate : uniform_)
      if (candidate.point.bits_per_weight <= budget * (1 + 1e-9) &&
          (uniform == nullptr || candidate.point.kl < uniform->point.kl))
        uniform = &candidate;
    if (uniform != nullptr && !clearly_less(best.kl, uniform->kl)) best = *uniform;
    std::set<Swap> tried;
    for (int i = 0; i < kSwaps; ++i) {
      const std::optional<Swap> swap = likeliest_swap(best.point.choice, budget, tried);
      if (!swap) break;
      tried.insert(*swap);
      Choice choice = best.point.choice;
      for (const auto& [part, recipe] : *swap) choice[part] = recipe;
      Candidate other = measure(name, choice);
      if (clearly_less(other.kl, best.kl)) best = std::move(other);
    }
    return std::move(best.point);
  }

  using Swap = std::vector<std::pair<std::size_t, std::size_t>>;  // parts and their new recipes

  // A part that gets more bits, and, if they are not there, one that gives them up: the two by which the expected KL
  // falls most.
  std::optional<Swap> likeliest_swap(const Choice& choice, double budget, const std::set<Swap>& tried) const {
    struct Move {
      std::size_t part, recipe;
      double bits, kl;
    };
    double room = 0;
    std::vector<Move> up, down;
    for (std::size_t p = 0; p < choice.size(); ++p) {
      const TunePart& part = report_.parts[p];
      room += budget * (1 + 1e-9) * part.weights - part.bits[choice[p]];
      for (std::size_t r = 0; r < part.bits.size(); ++r) {
        const Move move{p, r, part.bits[r] - part.bits[choice[p]], part.kl[r] - part.kl[choice[p]]};
        if (move.kl < 0) up.push_back(move);
        if (move.bits < 0) down.push_back(move);
      }
    }
    std::optional<Swap> best;
    double gain = 0;
    const auto consider = [&](const Swap& swap, double bits, double kl) {
      if (bits > room || kl >= gain || tried.contains(swap)) return;
      gain = kl;
      best = swap;
    };
    for (const Move& more : up) {
      consider({{more.part, more.recipe}}, more.bits, more.kl);
      for (const Move& less : down)
        if (less.part != more.part)
          consider({{more.part, more.recipe}, {less.part, less.recipe}}, more.bits + less.bits, more.kl + less.kl);
    }
    return best;
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

  TunePoint least_budget() {
    auto [low, high] = range();
    TunePoint best = within(high);
    if (best.kl > *request_.max_kl)
      fail(ErrorCode::usage, "a KL of {}: the best that these formats reach on the text is {:.6f}", *request_.max_kl,
           best.kl);
    for (int step = 1; step < kSearchSteps; ++step) {
      const double middle = (low + high) / 2;
      TunePoint found = within(middle);
      if (found.kl > *request_.max_kl) {
        low = middle;
      } else {
        high = middle;
        best = std::move(found);
      }
    }
    return best;
  }

  void tell(const std::string& what) {
    if (request_.progress)
      request_.progress(std::min(1.0, static_cast<double>(done_++) / static_cast<double>(steps_)), what);
  }

  const TuneRequest& request_;
  checkpoint::Checkpoint checkpoint_;
  models::Model model_;              // whose Linears are exchanged
  const eval::Reference reference_;  // of model_ as it was
  TuneReport report_;
  std::vector<Candidate> uniform_;  // report_.uniform
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
