#include "lowp/report/model_report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/base/temporary_folder.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/eval/calibrate.h"
#include "lowp/formats/recipes.h"
#include "lowp/quant/quantize_checkpoint.h"

namespace lowp::report {
namespace {

constexpr std::pair<std::string_view, eval::Method> kMethods[] = {
    {"disjoint", eval::Method::disjoint}, {"half", eval::Method::half}, {"rolling", eval::Method::rolling}};

// The parts between commas, without the blanks around them. Empty parts are an error.
std::vector<std::string> split(const std::string& list, const char* what) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    const std::size_t first = std::min(list.find_first_not_of(" \t\n", at), comma);
    const std::size_t last = first < comma ? list.find_last_not_of(" \t\n", comma - 1) + 1 : first;
    if (first >= last) fail(ErrorCode::usage, "{}: an empty name in '{}'", what, list);
    parts.push_back(list.substr(first, last - first));
    at = comma + 1;
  }
  return parts;
}

// What is measured of one model at a time, with its share of the progress bar.
class Measurement {
 public:
  Measurement(const ModelRequest& request, const text::Tokenizer* tokenizer)
      : request_(request),
        tokenizer_(tokenizer),
        original_(std::make_unique<models::Model>(request.model, request.load)) {
    if (original_->recipe() != "bf16")
      fail(ErrorCode::usage, "{}: is quantized already ({}); a report starts from the unquantized model", request.model,
           original_->recipe());
    phases_ = 2 + request.methods.size() * !request.text.empty() + !request.questions.empty();
    for (const formats::Recipe& recipe : request.recipes)
      needs_calibration_ |= recipe.activation && recipe.activation->scope == formats::Scope::calibrated;
  }

  Speed original_speed() { return request_.measure_speed(request_.model); }

  std::vector<ModelRow> rows() {
    calibrate();
    std::vector<ModelRow> rows = {original_row()};
    for (const formats::Recipe& recipe : request_.recipes) {
      ++model_;
      rows.push_back(row(recipe));
    }
    return rows;
  }

 private:
  void calibrate() {
    if (!needs_calibration_) return;
    what_ = "calibrating";
    inputs_ = eval::input_stats(*original_, *tokenizer_, request_.calibration, request_.calibration_tokens, {},
                                [&](auto, auto) { tell(0); });
  }

  ModelRow original_row() {
    ModelRow row;
    begin_phase("the original", 1);  // there is nothing to quantize
    const checkpoint::Checkpoint files(checkpoint::resolve_model(request_.model));
    std::uint64_t bytes = 0, count = 0;
    for (const checkpoint::StoredTensor& tensor : files.tensors()) {
      row.weight = formats::name(*info(tensor.view().dtype).element);
      bytes += tensor.view().bytes.size();
      count += static_cast<std::uint64_t>(element_count(tensor.view().shape));
    }
    row.recipe = row.weight;
    row.activation = row.weight;
    row.bits_per_weight = 8.0 * static_cast<double>(bytes) / static_cast<double>(count);
    row.file_bytes = checkpoint_bytes(files);
    evaluate(row, *original_, nullptr);
    begin_phase("timing the original", phases_ - 1);
    row.speed = original_speed();
    return row;
  }

  static std::uint64_t checkpoint_bytes(const checkpoint::Checkpoint& files) {
    std::map<std::string, std::uint64_t> sizes;
    for (const checkpoint::StoredTensor& tensor : files.tensors())
      sizes.try_emplace(tensor.file->path(), std::filesystem::file_size(tensor.file->path()));
    std::uint64_t sum = 0;
    for (const auto& [path, size] : sizes) sum += size;
    return sum;
  }

  ModelRow row(const formats::Recipe& recipe) {
    ModelRow row;
    row.recipe = recipe.name;
    row.weight = recipe.weight.name;
    row.activation = recipe.activation ? recipe.activation->word : "bf16";
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/model";
    begin_phase("quantizing to " + recipe.name, 0);
    try {
      quantize(recipe, path, row);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::unsupported) throw;
      row.refusal = e.what();
      return row;
    }
    {
      models::Model model(path, request_.load);
      evaluate(row, model, original_.get());
    }
    begin_phase("timing " + recipe.name, phases_ - 1);
    row.speed = request_.measure_speed(path);
    return row;
  }

  void quantize(const formats::Recipe& recipe, const std::string& path, ModelRow& row) {
    quant::QuantizeRequest request;
    request.model = request_.model;
    request.output = path;
    request.rules = quant::Rules::single(recipe);
    if (needs_calibration_) request.calibrate = [this](const auto&, const auto&) { return inputs_; };
    request.progress = [&](std::uint64_t done, std::uint64_t total) { tell(done, total); };
    const quant::QuantizeReport report = quant::quantize_checkpoint(std::move(request));
    row.bits_per_weight = report.bits_per_weight();
    row.file_bytes = report.file_bytes;
    double sum = 0, count = 0;
    for (const quant::LayerReport& layer : report.layers) {
      if (!std::isfinite(layer.sqnr)) continue;
      sum += layer.sqnr;
      ++count;
    }
    row.sqnr = count > 0 ? sum / count : INFINITY;
  }

  void evaluate(ModelRow& row, models::Model& model, models::Model* against) {
    std::size_t phase = 1;
    for (const eval::Method method : request_.methods) {
      if (request_.text.empty()) break;
      begin_phase(fmt::format("{}: perplexity, {}", row.recipe, name(method)), phase++);
      const eval::PerplexityOptions options{method, request_.context,
                                            method == eval::Method::rolling && request_.wikitext_documents,
                                            [&](std::uint64_t done, std::uint64_t total) { tell(done, total); }};
      row.perplexity.push_back(eval::perplexity(model, row.perplexity.empty() ? against : nullptr, false, *tokenizer_,
                                                request_.text, options));
    }
    if (request_.questions.empty()) return;
    begin_phase(row.recipe + ": questions", phase++);
    row.task = eval::multiple_choice(model, *tokenizer_, request_.questions,
                                     [&](std::uint64_t done, std::uint64_t total) { tell(done, total); });
  }

  void begin_phase(std::string what, std::size_t phase) {
    what_ = std::move(what);
    phase_ = phase;
    tell(0);
  }
  void tell(std::uint64_t done, std::uint64_t total) {
    tell(total ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1);
  }
  void tell(double share) {
    const double models = static_cast<double>(request_.recipes.size() + 1), phases = static_cast<double>(phases_);
    request_.progress((static_cast<double>(model_) + (static_cast<double>(phase_) + share) / phases) / models, what_);
  }

  const ModelRequest& request_;
  const text::Tokenizer* tokenizer_;
  std::unique_ptr<models::Model> original_;
  quant::Inputs inputs_;
  bool needs_calibration_ = false;
  std::size_t phases_ = 0, model_ = 0, phase_ = 0;
  std::string what_;
};

}  // namespace

std::vector<formats::Recipe> parse_recipes(const std::string& list) {
  std::vector<std::string> names;
  for (const std::string& part : split(list, "--recipes")) {
    if (part != "demo")
      names.push_back(part);
    else
      for (const std::string& name : formats::demo_recipe_names()) names.push_back(name);
  }
  std::vector<formats::Recipe> recipes;
  for (const std::string& name : names) {
    const formats::Recipe recipe = formats::recipe(name);
    const bool known =
        std::any_of(recipes.begin(), recipes.end(), [&](const auto& r) { return r.name == recipe.name; });
    if (!known && !recipe.keeps()) recipes.push_back(recipe);
  }
  return recipes;
}

std::vector<eval::Method> parse_methods(const std::string& list) {
  std::vector<std::string> known;
  for (const auto& [word, method] : kMethods) known.emplace_back(word);
  std::vector<eval::Method> methods;
  for (const std::string& part : split(list, "--methods")) {
    const auto* at =
        std::find_if(std::begin(kMethods), std::end(kMethods), [&](const auto& m) { return m.first == part; });
    if (at == std::end(kMethods))
      fail(ErrorCode::usage, "--methods: unknown method '{}'{}; known: {}", part, did_you_mean(part, known),
           fmt::join(known, ", "));
    if (std::find(methods.begin(), methods.end(), at->second) == methods.end()) methods.push_back(at->second);
  }
  return methods;
}

std::string_view name(eval::Method method) {
  for (const auto& [word, m] : kMethods)
    if (m == method) return word;
  return "?";
}

ModelReport measure_model(const ModelRequest& request, const text::Tokenizer* tokenizer) {
  for (const formats::Recipe& recipe : request.recipes)
    if (recipe.activation && recipe.activation->scope == formats::Scope::calibrated && request.calibration.empty())
      fail(ErrorCode::usage, "{}: its activation scale comes from calibration: --calibrate FILE is required",
           recipe.name);
  LOWP_CHECK(tokenizer || (request.text.empty() && request.questions.empty() && request.calibration.empty()),
             "a text needs a tokenizer");
  ModelReport report;
  report.model = request.model;
  report.methods = request.text.empty() ? std::vector<eval::Method>() : request.methods;
  Measurement measurement(request, tokenizer);
  report.rows = measurement.rows();
  if (report.rows.size() > 1) report.again = measurement.original_speed();
  return report;
}

}  // namespace lowp::report
