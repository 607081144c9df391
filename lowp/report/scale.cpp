// Scales, marks and label places: the arithmetic under the plots.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lowp/report/svg.h"

namespace lowp::report {
namespace {

constexpr double kLabelHeight = 13, kPointRadius = 5;

std::vector<double> multiples(double low, double high, int count) {
  const double rough = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * 0.999) step = factor * power;
  std::vector<double> marks;
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i) marks.push_back(i * step);
  return marks;
}

std::vector<double> powers(double low, double high, bool between) {
  std::vector<double> marks;
  for (int e = static_cast<int>(std::floor(std::log10(low))); std::pow(10.0, e) <= high * 1.0001; ++e)
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double mark = factor * std::pow(10.0, e);
      if ((between || factor == 1) && mark >= low * 0.9999 && mark <= high * 1.0001) marks.push_back(mark);
    }
  return marks;
}

Box square(double x, double y, double radius) { return {x - radius, y - radius, x + radius, y + radius}; }

// Whether the segment from (x, y) to the nearest edge of `label` runs over a box.
bool leader_crosses(double x, double y, const Box& label, const Box& other) {
  const double tx = std::clamp(x, label.left, label.right), ty = std::clamp(y, label.top, label.bottom);
  constexpr int kSteps = 24;
  for (int i = 0; i <= kSteps; ++i) {
    const double t = static_cast<double>(i) / kSteps;
    if (other.overlaps(square(x + t * (tx - x), y + t * (ty - y), 0.5))) return true;
  }
  return false;
}

// Places to try for one label: right, left, above, below and the diagonals, then in between, ever further away.
std::vector<Box> candidates(double x, double y, double width) {
  constexpr std::array<std::pair<double, double>, 16> kDirections = {{{1, 0},
                                                                      {-1, 0},
                                                                      {1, -1},
                                                                      {1, 1},
                                                                      {-1, -1},
                                                                      {-1, 1},
                                                                      {0, -1},
                                                                      {0, 1},
                                                                      {1, -0.5},
                                                                      {1, 0.5},
                                                                      {-1, -0.5},
                                                                      {-1, 0.5},
                                                                      {0.5, -1},
                                                                      {0.5, 1},
                                                                      {-0.5, -1},
                                                                      {-0.5, 1}}};
  std::vector<Box> boxes;
  for (const double reach : {8.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0, 112.0, 134.0, 158.0, 184.0, 212.0})
    for (const auto& [dx, dy] : kDirections) {
      const double cx = dx == 0 ? x - width / 2 : dx > 0 ? x + dx * reach : x + dx * reach - width;
      const double cy = y + dy * reach - kLabelHeight / 2;
      boxes.push_back({cx, cy, cx + width, cy + kLabelHeight});
    }
  return boxes;
}

}  // namespace

double Scale::operator()(double value) const {
  const double a = logarithmic ? std::log(low) : low, b = logarithmic ? std::log(high) : high,
               v = logarithmic ? std::log(value) : value;
  return a == b ? (from + to) / 2 : from + (v - a) / (b - a) * (to - from);
}

std::vector<double> ticks(double low, double high, bool logarithmic, int count) {
  if (!(low < high)) return {low};
  if (!logarithmic) return multiples(low, high, count);
  std::vector<double> marks = powers(low, high, true);
  if (marks.size() > 2 * static_cast<std::size_t>(count)) marks = powers(low, high, false);
  return marks.size() >= 4 ? marks : multiples(low, high, count);
}

std::string tick_text(double value) {
  if (std::abs(value) < 1e-12) return "0";
  return fmt::format("{:.5g}", value);
}

double text_width(const std::string& text) { return 6.9 * static_cast<double>(text.size()); }

std::vector<std::optional<Box>> place_labels(const std::vector<std::pair<double, double>>& points,
                                             const std::vector<std::string>& labels, const Box& area) {
  std::vector<std::optional<Box>> placed(points.size());
  const auto free = [&](std::size_t at, const Box& box, bool over_points) {
    const auto [x, y] = points[at];
    if (!area.contains(box)) return false;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const Box point = square(points[i].first, points[i].second, kPointRadius);
      if (box.overlaps(point) || (i != at && !over_points && leader_crosses(x, y, box, point))) return false;
      if (!placed[i]) continue;
      if (box.overlaps(*placed[i]) || leader_crosses(x, y, box, *placed[i])) return false;
      if (leader_crosses(points[i].first, points[i].second, *placed[i], box)) return false;
    }
    return true;
  };
  for (const bool over_points : {false, true})  // a leader over a neighbour's point is better than no label
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (placed[i]) continue;
      const auto boxes = candidates(points[i].first, points[i].second, text_width(labels[i]));
      const auto at =
          std::find_if(boxes.begin(), boxes.end(), [&](const Box& box) { return free(i, box, over_points); });
      if (at != boxes.end()) placed[i] = *at;
    }
  return placed;
}

}  // namespace lowp::report
