#include "lowp/report/layer_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "lowp/checkpoint/dialect.h"
#include "lowp/ops/cast.h"
#include "lowp/report/html.h"
#include "lowp/report/svg.h"

namespace lowp::report {
namespace {

constexpr std::size_t kLines = 4;  // of a plot: as many labels as fit beside its end

std::string histogram_plot(const std::string& title, const std::map<std::string, Histogram>& histograms) {
  std::string out;
  LinePlot plot;
  const auto flush = [&] {
    if (!plot.lines.empty()) out += svg(plot);
    plot.lines.clear();
  };
  plot.title = title;
  plot.x = {"size over the layer's root mean square", true};
  plot.y = {"share of values", false};
  plot.xs = Histogram::bounds();
  for (const auto& [name, histogram] : histograms) {
    plot.lines.push_back({name, histogram.shares()});
    if (plot.lines.size() == kLines) flush();
  }
  flush();
  return out;
}

// Values of a matrix, quantized or not.
std::vector<float> values_of(const checkpoint::Checkpoint& model, const checkpoint::Dialect* dialect,
                             const checkpoint::QuantizedModule* module, const checkpoint::StoredTensor* tensor) {
  Tensor decoded;
  TensorView view;
  if (module) {
    decoded = ops::dequantize(dialect->decode(model, *module), DType::f32);
    view = decoded.view();
  } else {
    view = tensor->view();
  }
  std::vector<float> values(static_cast<std::size_t>(element_count(view.shape)));
  load_f32(view, 0, element_count(view.shape), values.data());
  return values;
}

double root_mean_square(std::span<const float> values) {
  double sum = 0;
  for (const float x : values) sum += static_cast<double>(x) * static_cast<double>(x);
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

// A matrix of a layer.
struct Matrix {
  std::string module, format;
  double bits = 0;
  const checkpoint::QuantizedModule* quantized = nullptr;
  const checkpoint::StoredTensor* tensor = nullptr;
};

std::vector<Matrix> matrices(const checkpoint::Checkpoint& model, const checkpoint::Dialect* dialect,
                             const std::vector<checkpoint::QuantizedModule>& modules) {
  std::vector<Matrix> found;
  std::set<std::string> taken;
  for (const checkpoint::QuantizedModule& module : modules) {
    double bytes = 0;
    for (const std::string& name : dialect->sources(model, module)) {
      taken.insert(name);
      bytes += static_cast<double>(model.find(name)->view().bytes.size());
    }
    found.push_back(
        {module.name, module.recipe.name, 8 * bytes / static_cast<double>(module.m * module.k), &module, nullptr});
  }
  for (const checkpoint::StoredTensor& tensor : model.tensors()) {
    const std::string& name = tensor.entry.name;
    if (taken.contains(name) || !name.ends_with(".weight") || tensor.entry.shape.size() != 2 ||
        !is_high_precision(tensor.entry.dtype))
      continue;
    found.push_back({name.substr(0, name.size() - 7), std::string(tensor.entry.type_name()),
                     static_cast<double>(info(tensor.entry.dtype).bits), nullptr, &tensor});
  }
  return found;
}

}  // namespace

void Histogram::add(std::span<const float> values, double rms) {
  if (!(rms > 0)) rms = 1;
  for (const float value : values) {
    const double size = std::fabs(static_cast<double>(value)) / rms;
    const int bin = size > 0 ? static_cast<int>(std::floor(std::log2(size))) + kZero : 0;
    ++counts_[static_cast<std::size_t>(std::clamp(bin, 0, kBins - 1))];
  }
}

std::vector<double> Histogram::shares() const {
  double total = 0;
  for (const std::uint64_t count : counts_) total += static_cast<double>(count);
  std::vector<double> shares;
  for (const std::uint64_t count : counts_) shares.push_back(total > 0 ? static_cast<double>(count) / total : 0);
  return shares;
}

std::vector<double> Histogram::bounds() {
  std::vector<double> bounds;
  for (int i = 0; i < kBins; ++i) bounds.push_back(std::ldexp(1.0, i - kZero));
  return bounds;
}

std::optional<LayerName> layer_name(const std::string& module) {
  constexpr std::string_view kLayers = "layers.", kExperts = ".experts.";
  const auto at = module.find(kLayers);
  if (at == std::string::npos) return std::nullopt;
  LayerName name;
  const auto [end, error] =
      std::from_chars(module.data() + at + kLayers.size(), module.data() + module.size(), name.layer);
  if (error != std::errc() || end == module.data() + module.size() || *end != '.') return std::nullopt;
  name.part.assign(end + 1, module.data() + module.size());
  if (const auto experts = name.part.find(kExperts); experts != std::string::npos) {
    const auto begin = experts + kExperts.size();
    name.part.replace(begin, name.part.find('.', begin) - begin, "*");
  }
  return name;
}

std::string layer_map(const std::string& title, const std::string& unit, const std::map<std::string, double>& values,
                      double low, double high) {
  std::map<std::string, std::map<std::int64_t, std::pair<double, int>>> cells;
  std::int64_t layers = 0;
  for (const auto& [module, value] : values)
    if (const auto name = layer_name(module)) {
      auto& [sum, count] = cells[name->part][name->layer];
      sum += value;
      ++count;
      layers = std::max(layers, name->layer + 1);
    }
  HeatMap map{title, {}, {}, {}, low, high, unit, "layer"};
  for (std::int64_t i = 0; i < layers; ++i) map.columns.push_back(std::to_string(i));
  for (const auto& [part, row] : cells) {
    map.rows.push_back(part);
    map.values.emplace_back(static_cast<std::size_t>(layers), NAN);
    for (const auto& [layer, sum] : row) map.values.back()[static_cast<std::size_t>(layer)] = sum.first / sum.second;
  }
  return cells.empty() ? "" : svg(map);
}

std::string inspect_page(const checkpoint::Checkpoint& model, const std::string& about,
                         const std::function<void(double)>& progress) {
  const checkpoint::Dialect* dialect = checkpoint::detect_dialect(model);
  const std::vector<checkpoint::QuantizedModule> modules =
      dialect ? dialect->modules(model) : std::vector<checkpoint::QuantizedModule>();
  const std::vector<Matrix> all = matrices(model, dialect, modules);
  Grid grid{"Matrices", {{"module", {}}, {"format", {}}, {"bits/weight", {}}, {"rms", {}}, {"largest", {}}}, {}};
  std::map<std::string, double> bits;
  std::map<std::string, Histogram> histograms;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Matrix& matrix = all[i];
    const std::vector<float> values = values_of(model, dialect, matrix.quantized, matrix.tensor);
    const double rms = root_mean_square(values);
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    const auto name = layer_name(matrix.module);
    histograms[name ? name->part : matrix.module].add(values, rms);
    bits[matrix.module] = matrix.bits;
    grid.rows.push_back({{matrix.module, {}},
                         {matrix.format, {}},
                         number_cell(matrix.bits, "{:.3f}"),
                         number_cell(rms, "{:.4g}"),
                         number_cell(static_cast<double>(largest), "{:.4g}")});
    if (matrix.tensor) matrix.tensor->file->release(matrix.tensor->view().bytes);
    progress(static_cast<double>(i + 1) / static_cast<double>(all.size()));
  }
  std::map<std::string, std::size_t> formats;
  for (const Matrix& matrix : all) ++formats[matrix.format];
  std::string summary = "<p>";
  for (const auto& [format, count] : formats)
    summary += fmt::format("{}{}: {}", summary.size() > 3 ? ", " : "", escape(format), count);
  return html_page("Layers of " + model.path(), about,
                   summary + "</p>" + layer_map("Bits a weight", "bits", bits, 2, 16) +
                       histogram_plot("Weights", histograms) + html_table(grid),
                   {});
}

std::string eval_page(const std::string& model, const std::string& against, const eval::PerplexityResult& result,
                      const std::map<std::string, Histogram>& inputs, const std::string& about) {
  Grid grid{"Whole model", {{"measure", {}}, {"value", {}}, {"standard error", {}}}, {}};
  const auto add = [&](const char* what, double value, std::optional<double> error) {
    grid.rows.push_back({{what, {}}, number_cell(value, "{:.6g}"), number_cell(error, "{:.2g}")});
  };
  add("perplexity", result.perplexity, {});
  add("NLL, nats a token", result.nll, result.nll_stderr);
  if (result.kl) {
    add("KL, nats", result.kl->mean, result.kl->stderr_);
    add("KL, 99 % quantile", result.kl->p99, {});
    add("same top-1, %", 100 * result.kl->top1, 100 * result.kl->top1_stderr);
  }
  std::map<std::string, double> sqnr;
  Grid layers{"Layers", {{"module", {}}, {"output SQNR dB", {}}}, {}};
  for (const eval::LayerSqnr& layer : result.layers) {
    sqnr[layer.module] = layer.sqnr;
    layers.rows.push_back({{layer.module, {}}, number_cell(layer.sqnr, "{:.2f}")});
  }
  const std::string title = against.empty() ? model : model + " against " + against;
  return html_page(title, about,
                   html_table(grid) + layer_map("Output SQNR", "dB", sqnr, 10, 60) +
                       histogram_plot("Inputs of Linears", inputs) + (layers.rows.empty() ? "" : html_table(layers)),
                   {});
}

}  // namespace lowp::report
