#include "bench/roofline.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/cases.h"
#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/models/shapes.h"
#include "lowp/report/html.h"
#include "lowp/report/svg.h"

namespace lowp::bench {
namespace {

using formats::BlockFormat;
using formats::Recipe;
using formats::Rule;

constexpr double kLaunch = 2e-6;

// The makers' dense rates; memory as torchao's tables have it (the H100 is its variant with slower memory).
const std::array<Peaks, 2> kKnown = {{
    {"h100", 989e12, 1979e12, 0, 1979e12, 2.4e12, 0.78, 0.92},
    {"b200", 2.25e15, 4.5e15, 9e15, 4.5e15, 7.67232e12, 0.78, 0.92},
}};

double field(const Json& json, const std::string& path, const char* name, std::optional<double> fallback) {
  const auto at = json.find(name);
  if (at == json.end() && fallback) return *fallback;
  if (at == json.end() || !at->is_number() || !(at->get<double>() >= 0) || !std::isfinite(at->get<double>()))
    fail(ErrorCode::bad_input, "{}: '{}' must be a number of 0 or more", path, name);
  return at->get<double>();
}

Peaks read_peaks(const std::string& path) {
  const Json json = read_json(path);
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object with bf16, bytes, ...", path);
  Peaks p{.name = path,
          .bf16 = field(json, path, "bf16", std::nullopt),
          .fp8 = field(json, path, "fp8", 0),
          .fp4 = field(json, path, "fp4", 0),
          .int8 = field(json, path, "int8", 0),
          .bytes = field(json, path, "bytes", std::nullopt),
          .gemm_share = field(json, path, "gemm_share", 1),
          .memory_share = field(json, path, "memory_share", 1)};
  if (p.bf16 == 0 || p.bytes == 0 || p.gemm_share == 0 || p.memory_share == 0)
    fail(ErrorCode::bad_input, "{}: bf16, bytes, gemm_share and memory_share must be above 0", path);
  return p;
}

struct Bound {
  const Peaks& peaks;
  double seconds(double bytes) const { return std::max(bytes / (peaks.bytes * peaks.memory_share), kLaunch); }
  double seconds(double bytes, double flop, double rate) const {
    return std::max(seconds(bytes), flop / rate / peaks.gemm_share);
  }
};

bool is_float(const BlockFormat& f) { return formats::info(f.element).is_float(); }
int bits(const BlockFormat& f) { return formats::info(f.element).bits; }

// The rate of a recipe's products: the narrowest type that holds both operands exactly.
double rate(const Peaks& peaks, const Recipe& recipe) {
  double found = 0;
  if (recipe.activation) {
    const BlockFormat &w = recipe.weight, &a = recipe.activation->format;
    if (!is_float(a))
      found = is_float(w) ? 0 : peaks.int8;
    else
      found = bits(w) == 4 && bits(a) == 4 && is_float(w) ? peaks.fp4 : peaks.fp8;
  }
  return found > 0 ? found : peaks.bf16;
}

// Bytes of `count` values; torchao counts an MX or nvfp4 scale as one more value.
double operand_bytes(const BlockFormat& f, double count) {
  const bool blocks = f.group_cols == 16 || f.group_cols == 32;
  const double values = count + (blocks ? std::floor(count / f.group_cols) : 0);
  return values * (is_float(f) || bits(f) > 4 ? (bits(f) == 4 ? 0.5 : 1.0) : bits(f) / 8.0);
}

// Quantizing the activation: every kernel reads bf16 values or writes codes and scales.
double cast_seconds(const Bound& bound, const formats::Activation& activation, const LayerShape& s) {
  const BlockFormat& f = activation.format;
  const auto m = static_cast<double>(s.m), n = m * static_cast<double>(s.k);
  const double codes = bits(f) == 4 ? 0.5 : 1.0;
  if (f.rule == Rule::mx || f.rule == Rule::nvfp4) {
    const bool two_passes = f.tensor_scale && activation.scope == formats::Scope::tensor;
    return bound.seconds((two_passes ? 2 * n : 0) + (2 + codes) * n + m * std::floor(s.k / f.group_cols));
  }
  if (activation.scope == formats::Scope::tensor) return bound.seconds(2 * n) + bound.seconds((2 + codes) * n);
  const double scales = f.group_cols ? n / f.group_cols : activation.scope == formats::Scope::calibrated ? 0 : m;
  return bound.seconds((2 + codes) * n + 4 * scales);
}

std::vector<LayerShape> model_layers(const std::string& name) {
  const models::Config c = models::shape(name);
  std::vector<LayerShape> shapes;
  for (const std::int64_t m : {1, 64, 4096}) {
    shapes.push_back({m, c.hidden_size, (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim});
    shapes.push_back({m, c.num_attention_heads * c.head_dim, c.hidden_size});
    shapes.push_back({m, c.hidden_size, 2 * c.intermediate_size});
    shapes.push_back({m, c.intermediate_size, c.hidden_size});
  }
  return shapes;
}

std::string spelled(const LayerShape& s) { return fmt::format("{} x {} x {}", s.m, s.k, s.n); }

double ratio(double expected, std::optional<double> observed) { return observed ? expected / *observed : -1; }

}  // namespace

std::vector<std::string> known_peaks() {
  std::vector<std::string> names;
  for (const Peaks& p : kKnown) names.push_back(p.name);
  return names;
}

Peaks peaks(const std::string& name) {
  for (const Peaks& p : kKnown)
    if (p.name == name) return p;
  if (name.find('.') == std::string::npos && name.find('/') == std::string::npos)
    fail(ErrorCode::usage, "--peaks {}: neither a file nor one of measured, {}{}", name, fmt::join(known_peaks(), ", "),
         did_you_mean(name, known_peaks()));
  return read_peaks(name);
}

Peaks measured_peaks(Device& device) {
  Peaks p{.name = device.description()};
  for (const Row& probed : probe_limits(device)) {
    const auto is = [&](std::string_view word) { return probed.limit_name.find(word) != std::string::npos; };
    if (is("copy")) continue;
    double& rate = is("read") ? p.bytes : is("e4m3") ? p.fp8 : is("int8") || is("vnni") ? p.int8 : p.bf16;
    rate = std::max(rate, probed.limit);
  }
  if (p.bf16 == 0) fail(ErrorCode::unsupported, "{}: no rate of products can be measured", p.name);
  return p;
}

std::vector<LayerShape> layer_shapes(const std::string& name) {
  std::vector<LayerShape> shapes;
  const auto cubes = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t size = from; size <= to; size *= 2) shapes.push_back({size, size, size});
  };
  if (name == "pow2")
    cubes(1024, 16384);
  else if (name == "sweep")
    cubes(256, 32768);
  else if (name == "llama")
    shapes = {{16384, 8192, 1280}, {16384, 1024, 8192}, {16384, 8192, 7168}, {16384, 3584, 8192}};
  else
    shapes = model_layers(name);
  return shapes;
}

Expected expected(const Peaks& peaks, const Recipe& recipe, const LayerShape& s, bool fusion) {
  const Bound bound{peaks};
  const auto m = static_cast<double>(s.m), k = static_cast<double>(s.k), n = static_cast<double>(s.n);
  const double flop = 2 * m * k * n, out = 2 * m * n;
  Expected e;
  e.bf16_gemm = bound.seconds(2 * (m * k + k * n) + out, flop, peaks.bf16);
  if (fusion) e.bf16_activation = bound.seconds(4 * m * k);
  if (recipe.keeps()) {
    e.gemm = e.bf16_gemm;
    e.cast = e.bf16_activation;
    return e;
  }
  const double input = recipe.activation ? operand_bytes(recipe.activation->format, m * k) : 2 * m * k;
  e.gemm = bound.seconds(input + operand_bytes(recipe.weight, k * n) + out, flop, rate(peaks, recipe));
  e.cast = recipe.activation ? cast_seconds(bound, *recipe.activation, s) : e.bf16_activation;
  return e;
}

Json to_json(const RooflineRow& row) {
  const Expected& e = row.expected;
  const auto seen = [&](double Observed::*field) -> std::optional<double> {
    return row.observed ? std::optional((*row.observed).*field) : std::nullopt;
  };
  const auto bf16 = seen(&Observed::bf16_gemm), gemm = seen(&Observed::gemm), bf16_whole = seen(&Observed::bf16_whole),
             whole = seen(&Observed::whole);
  return {{"recipe", row.recipe},
          {"fwd_M", row.shape.m},
          {"fwd_K", row.shape.k},
          {"fwd_N", row.shape.n},
          {"r_bf16_gemm_s", e.bf16_gemm},
          {"r_fp8_gemm_s", e.gemm},
          {"r_bf16_ovhd_s", e.bf16_activation},
          {"r_fp8_ovhd_s", e.cast},
          {"r_fp8_gemm_and_ovhd_s", e.gemm + e.cast},
          {"r_fp8_gemm_and_ovhd_spdp", e.speedup()},
          {"b_bf16_gemm_s", bf16.value_or(-1)},
          {"b_fp8_gemm_s", gemm.value_or(-1)},
          {"b_bf16_e2e_s", bf16_whole.value_or(-1)},
          {"b_fp8_e2e_s", whole.value_or(-1)},
          {"b_fp8_e2e_spdp", whole ? *bf16_whole / *whole : -1},
          {"rb_bf16_gemm_ratio", ratio(e.bf16_gemm, bf16)},
          {"rb_fp8_gemm_ratio", ratio(e.gemm, gemm)}};
}

std::string roofline_page(const Peaks& peaks, const std::vector<RooflineRow>& rows) {
  report::Grid grid{.title = "Layers", .columns = {}, .rows = {}};
  for (const char* title : {"recipe", "M x K x N", "bf16 product, us", "bf16 activation, us", "product, us", "cast, us",
                            "speed-up", "observed product, us", "observed speed-up"})
    grid.columns.push_back({title, std::nullopt});
  const auto microseconds = [](std::optional<double> seconds) {
    return report::number_cell(seconds ? std::optional(*seconds * 1e6) : std::nullopt, "{:.2f}");
  };
  report::LinePlot plot{
      .title = "Expected speed-up over bf16", .x = {"M K N, cube root", true}, .y = {"", false}, .xs = {}, .lines = {}};
  for (const RooflineRow& row : rows) {
    const Expected& e = row.expected;
    const auto& seen = row.observed;
    grid.rows.push_back(
        {{row.recipe, std::nullopt},
         {spelled(row.shape), std::nullopt},
         microseconds(e.bf16_gemm),
         microseconds(e.bf16_activation),
         microseconds(e.gemm),
         microseconds(e.cast),
         report::number_cell(e.speedup(), "{:.2f}"),
         microseconds(seen ? std::optional(seen->gemm) : std::nullopt),
         report::number_cell(seen ? std::optional(seen->bf16_whole / seen->whole) : std::nullopt, "{:.2f}")});
    if (plot.lines.empty() || plot.lines.back().label != row.recipe) plot.lines.push_back({row.recipe, {}});
    if (plot.lines.size() == 1)
      plot.xs.push_back(std::cbrt(static_cast<double>(row.shape.m) * static_cast<double>(row.shape.k) *
                                  static_cast<double>(row.shape.n)));
    plot.lines.back().y.push_back(e.speedup());
  }
  const bool ordered = std::is_sorted(plot.xs.begin(), plot.xs.end());
  return report::html_page(
      "lowp roofline",
      fmt::format("Peaks of {}: bf16 {:.4g}, fp8 {:.4g}, fp4 {:.4g}, int8 {:.4g} operations/s; memory {:.4g} bytes/s; "
                  "of which kernels reach {:.0f} % and {:.0f} %",
                  peaks.name, peaks.bf16, peaks.fp8, peaks.fp4, peaks.int8, peaks.bytes, peaks.gemm_share * 100,
                  peaks.memory_share * 100),
      (ordered && plot.xs.size() > 1 ? svg(plot) : "") + report::html_table(grid), {});
}

}  // namespace lowp::bench
