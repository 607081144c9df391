#include "lowp/report/numerics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lowp/quant/quantize.h"
#include "lowp/report/svg.h"

namespace lowp::report {
namespace {

// SplitMix64 and Box-Muller: the same numbers with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  double uniform() {  // [0, 1)
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  std::uint64_t state_;
};

double draw(Random& random, Data data) {
  const double z = random.normal();
  if (data == Data::normal) return z;
  double squares = 0;
  for (int i = 0; i < 3; ++i) {
    const double v = random.normal();
    squares += v * v;
  }
  return z / std::sqrt(squares / 3);
}

// Parameters that stand for a family: every width in groups of 32, the usual one in groups of 128, and some channels.
std::vector<std::string> members(std::string_view pattern) {
  const std::vector<std::string> all = formats::expand_pattern(pattern);
  if (all.size() == 1) return all;
  const bool plain = pattern.ends_with("<G>") || pattern.ends_with("_channel");  // with no other kind of zero point
  std::vector<std::string> chosen;
  for (const std::string& name : all) {
    const auto match = formats::match_pattern(pattern, name);
    if (!match) continue;
    const auto [bits, group] = *match;
    if (bits == 0     ? group == 64
        : group == 0  ? plain && (bits == 8 || bits == 4)
        : group == 32 ? plain || bits == 4 || bits == 2
                      : group == 128 && bits == 4)
      chosen.push_back(name);
  }
  return chosen;
}

std::string row_label(const formats::BlockFormat& format, DType dtype) {
  return fmt::format("{} ({:.2f} bits)", format.name,
                     formats::bits_per_weight(format, kNumericsRows, kNumericsColumns, element_of(dtype)));
}

std::string panel_title(const NumericsPanel& panel) {
  return fmt::format("SQNR in dB, {} data, {}", panel.data == Data::normal ? "normal" : "heavy-tailed",
                     formats::name(element_of(panel.dtype)));
}

}  // namespace

std::string_view name(Data data) { return data == Data::normal ? "normal" : "heavy"; }

std::vector<formats::BlockFormat> numerics_formats() {
  std::vector<formats::BlockFormat> list;
  const auto add = [&](const std::string& name) {
    if (std::none_of(list.begin(), list.end(), [&](const auto& f) { return f.name == name; }))
      list.push_back(formats::block_format(name));
  };
  for (const formats::Elem plain : {formats::Elem::bf16, formats::Elem::f16}) add(std::string(formats::name(plain)));
  for (const formats::BlockRow& row : formats::block_rows())
    if (!row.calibrated)  // a calibrated scale is another format's scale, fixed
      for (const std::string& name : members(row.pattern)) add(name);
  return list;
}

Tensor numerics_tensor(Data data, DType dtype, int exponent) {
  Random random(data == Data::normal ? 1 : 2);
  std::vector<double> values(static_cast<std::size_t>(kNumericsRows * kNumericsColumns));
  double amax = 0;
  for (double& v : values) amax = std::max(amax, std::abs(v = draw(random, data)));
  std::vector<float> scaled;
  for (const double v : values) scaled.push_back(static_cast<float>(v / amax));
  Tensor tensor(dtype, {kNumericsRows, kNumericsColumns});
  store_rounded(tensor, 0, scaled);
  load_f32(tensor.view(), 0, kNumericsRows * kNumericsColumns, scaled.data());
  for (float& v : scaled) v = std::ldexp(v, exponent);
  store_rounded(tensor, 0, scaled);
  return tensor;
}

NumericsReport measure_numerics(const Machine& machine, const std::function<void(double)>& progress) {
  NumericsReport report{machine, numerics_formats(), {}, {}};
  for (int e = kLeastExponent; e <= kMostExponent; e += kExponentStep) report.exponents.push_back(e);
  const double total = 4.0 * static_cast<double>(report.exponents.size() * report.formats.size());
  double done = 0;
  for (const Data data : {Data::normal, Data::heavy})
    for (const DType dtype : {DType::bf16, DType::f32}) {
      NumericsPanel panel{data, dtype, std::vector<std::vector<double>>(report.formats.size())};
      for (const int exponent : report.exponents) {
        const Tensor tensor = numerics_tensor(data, dtype, exponent);
        for (std::size_t f = 0; f < report.formats.size(); ++f) {
          ops::CastOptions options;
          options.name = report.formats[f].name;
          const QuantizedMatrix q =
              quant::quantize(tensor.view(), report.formats[f], quant::Algorithm::absmax, options);
          panel.sqnr[f].push_back(ops::sqnr(tensor.view(), q, options));
          progress(++done / total);
        }
      }
      report.panels.push_back(std::move(panel));
    }
  return report;
}

std::vector<Grid> grids(const NumericsReport& report) {
  std::vector<Grid> all;
  for (const NumericsPanel& panel : report.panels) {
    Grid grid{panel_title(panel), {{"format", {}}, {"bits", 1}}, {}};
    for (const int e : report.exponents) grid.columns.push_back({fmt::format("2^{}", e), 0});
    for (std::size_t f = 0; f < report.formats.size(); ++f) {
      const formats::BlockFormat& format = report.formats[f];
      std::vector<Cell> row = {
          {format.name, {}},
          number_cell(formats::bits_per_weight(format, kNumericsRows, kNumericsColumns, element_of(panel.dtype)),
                      "{:.3f}")};
      for (const double value : panel.sqnr[f]) row.push_back(number_cell(value, "{:.1f}"));
      grid.rows.push_back(std::move(row));
    }
    all.push_back(std::move(grid));
  }
  return all;
}

std::vector<Note> notes(const NumericsReport&) {
  return {{"SQNR",
           "20 log10(|x| / |x - q|) in dB over all elements of a [64, 512] matrix, quantized along its rows and "
           "decoded to f32; 0 dB: all values became "
           "zero; \"exact\": nothing is lost. MX scales are rounded by rceil, as in `lowp quantize`."},
          {"bits", "of codes, scales and zero points for each element of that matrix, sub-byte codes packed densely."},
          {"columns",
           "the largest magnitude of the matrix, a power of two. All columns hold the same numbers but for that exact "
           "factor, so a format that follows the "
           "magnitude has the same SQNR everywhere."},
          {"data",
           "normal: standard normal. heavy-tailed: Student's t with 3 degrees of freedom. Fixed seeds; f32 values, or "
           "the same rounded to bf16."},
          {"scope", "a cast on the CPU, bit-identical to torchao's; no model is involved."}};
}

Json to_json(const NumericsReport& report) {
  Json rows = Json::array();
  for (const NumericsPanel& panel : report.panels)
    for (std::size_t f = 0; f < report.formats.size(); ++f) {
      Json sqnr = Json::array();
      for (const double value : panel.sqnr[f]) sqnr.push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
      rows.push_back({{"format", report.formats[f].name},
                      {"data", name(panel.data)},
                      {"dtype", formats::name(element_of(panel.dtype))},
                      {"bits_per_weight", formats::bits_per_weight(report.formats[f], kNumericsRows, kNumericsColumns,
                                                                   element_of(panel.dtype))},
                      {"sqnr", sqnr}});
    }
  Json explained = Json::object();
  for (const Note& note : notes(report)) explained[note.term] = note.text;
  return {{"report", "numerics"},
          {"measured_on", report.machine.cpu},
          {"threads", report.machine.threads},
          {"date", report.machine.date},
          {"version", report.machine.version},
          {"shape", {kNumericsRows, kNumericsColumns}},
          {"amax_log2", report.exponents},
          {"rows", rows},
          {"notes", explained}};
}

std::string html(const NumericsReport& report) {
  std::string body =
      "<p>How much of a tensor survives a cast, over the tensor's largest magnitude. A format whose scale has a narrow "
      "range (one-level nvfp4, f16) "
      "fades at the left or the right; a second-level scale or a power-of-two scale keeps it level.</p>\n";
  std::vector<std::string> columns;
  for (const int e : report.exponents) columns.push_back(fmt::format("2^{}", e));
  body += "<h2>4-bit floats</h2>\n";
  for (const NumericsPanel& panel : report.panels) {
    if (panel.dtype != DType::bf16) continue;
    LinePlot plot{panel_title(panel),
                  {"largest magnitude, log2"},
                  {"SQNR dB"},
                  {report.exponents.begin(), report.exponents.end()},
                  {}};
    for (std::size_t f = 0; f < report.formats.size(); ++f)
      if (report.formats[f].element == formats::Elem::e2m1)
        plot.lines.push_back({report.formats[f].name, panel.sqnr[f]});
    body += svg(plot);
  }
  body += "<h2>All formats</h2>\n";
  for (const NumericsPanel& panel : report.panels) {
    HeatMap map{panel_title(panel), columns, {}, panel.sqnr, 0, 50, "dB", "largest magnitude"};
    for (const formats::BlockFormat& format : report.formats) map.rows.push_back(row_label(format, panel.dtype));
    body += svg(map);
  }
  for (const Grid& grid : grids(report)) body += html_table(grid);
  return html_page("lowp report numerics", about(report.machine), body, notes(report));
}

}  // namespace lowp::report
