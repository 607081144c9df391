// What a tuning looks like as a page.
#include <fmt/format.h>

#include "lowp/report/html.h"
#include "lowp/report/svg.h"
#include "lowp/report/tune.h"

namespace lowp::report {
namespace {

Grid points_grid(const TuneReport& report) {
  Grid grid{"Whole models", {{"recipe", {}}, {"bits/weight", {}}, {"KL", 0}, {"standard error", {}}}, {}};
  const auto add = [&](const TunePoint& point) {
    grid.rows.push_back({{point.name, {}},
                         number_cell(point.bits_per_weight, "{:.3f}"),
                         number_cell(point.kl, "{:.6f}"),
                         number_cell(point.kl_stderr, "{:.6f}")});
  };
  add(report.chosen);
  for (const TunePoint& point : report.uniform) add(point);
  for (const TunePoint& point : report.frontier) add(point);
  return grid;
}

Grid parts_grid(const TuneReport& report) {
  Grid grid{"Parts", {{"layers", {}}, {"weights", {}}, {"recipe", {}}}, {}};
  for (const std::string& recipe : report.recipes) grid.columns.push_back({"KL in " + recipe, 1});
  for (const TunePart& part : report.parts) {
    std::vector<Cell> row = {{fmt::format("{}", fmt::join(part.patterns, ", ")), {}},
                             number_cell(part.weights, "{:.0f}"),
                             {report.recipes[part.chosen], {}}};
    for (const double kl : part.kl) row.push_back(number_cell(kl, "{:.6f}"));
    grid.rows.push_back(std::move(row));
  }
  return grid;
}

std::string plot(const TuneReport& report) {
  ScatterPlot plot{"Size against divergence",
                   {"bits a weight", false},
                   {"KL", true},
                   {"one recipe", "mixed", "chosen"},
                   {},
                   std::nullopt,
                   ""};
  for (const TunePoint& point : report.uniform) plot.points.push_back({point.bits_per_weight, point.kl, point.name, 0});
  for (const TunePoint& point : report.frontier) plot.points.push_back({point.bits_per_weight, point.kl, "", 1});
  plot.points.push_back({report.chosen.bits_per_weight, report.chosen.kl, report.chosen.name, 2});
  return svg(plot);
}

}  // namespace

std::string tune_page(const TuneReport& report, const std::string& about) {
  const std::vector<Note> notes = {
      {"KL",
       "mean over positions of KL(original || quantized) on the text, in nats, measured with everything quantized"},
      {"KL in a recipe", "the same with this part alone quantized and the rest as it is"}};
  return html_page("Mixed recipe for " + report.model, about,
                   plot(report) + html_table(points_grid(report)) + html_table(parts_grid(report)), notes);
}

}  // namespace lowp::report
