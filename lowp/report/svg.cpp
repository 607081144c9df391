#include "lowp/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lowp/report/html.h"

namespace lowp::report {
namespace {

std::string open(double width, double height, const std::string& title) {
  return fmt::format(
      "<div class=\"wide\"><svg viewBox=\"0 0 {:.0f} {:.0f}\" width=\"{:.0f}\" role=\"img\" aria-label=\"{}\">\n<text "
      "class=\"title\" "
      "x=\"0\" y=\"16\">{}</text>\n",
      width, height, width, escape(title), escape(title));
}

constexpr const char* kClose = "</svg></div>\n";

std::string text(double x, double y, const std::string& words, const std::string& attributes = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}{}>{}</text>\n", x, y, attributes.empty() ? "" : " ", attributes,
                     escape(words));
}

std::string line(double x1, double y1, double x2, double y2, const char* kind) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", kind, x1, y1, x2,
                     y2);
}

// The range of values, widened so that nothing sits on the frame.
Scale fit(const std::vector<double>& values, bool logarithmic, double from, double to) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  double a = *low, b = *high;
  if (logarithmic) {
    const double margin = std::pow(std::max(b / a, 1.05), 0.06);
    return {a / margin, b * margin, true, from, to};
  }
  const double margin = b > a ? 0.06 * (b - a) : std::max(0.05 * std::abs(a), 1e-3);
  return {a - margin, b + margin, false, from, to};
}

// Frame, marks and axis labels.
std::string axes(const Box& area, const Axis& x, const Axis& y, const Scale& sx, const Scale& sy) {
  std::string out;
  for (const double mark : ticks(sx.low, sx.high, sx.logarithmic, 10)) {
    out += line(sx(mark), area.top, sx(mark), area.bottom, "grid");
    out += text(sx(mark), area.bottom + 16, tick_text(mark), "text-anchor=\"middle\"");
  }
  for (const double mark : ticks(sy.low, sy.high, sy.logarithmic)) {
    out += line(area.left, sy(mark), area.right, sy(mark), "grid");
    out += text(area.left - 6, sy(mark) + 4, tick_text(mark), "text-anchor=\"end\"");
  }
  out += fmt::format("<rect class=\"axis\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n", area.left, area.top,
                     area.right - area.left, area.bottom - area.top);
  out += text((area.left + area.right) / 2, area.bottom + 34, x.label, "class=\"muted\" text-anchor=\"middle\"");
  const double middle = (area.top + area.bottom) / 2;
  return out + text(14, middle, y.label,
                    fmt::format("class=\"muted\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1f})\"", middle));
}

// A disc for the first series, then square and diamond: told apart without colour.
std::string marker(double x, double y, std::size_t series, const std::string& title) {
  const std::string head = fmt::format("class=\"s{}\"", series % 5),
                    tail = title.empty() ? "/>\n" : fmt::format("><title>{}</title>", escape(title));
  if (series % 3 == 0)
    return fmt::format("<circle {} cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"{}{}", head, x, y, tail,
                       title.empty() ? "" : "</circle>\n");
  const std::string turn = series % 3 == 1 ? fmt::format(" transform=\"rotate(45 {:.1f} {:.1f})\"", x, y) : "";
  return fmt::format("<rect {} x=\"{:.1f}\" y=\"{:.1f}\" width=\"7\" height=\"7\"{}{}{}", head, x - 3.5, y - 3.5, turn,
                     tail, title.empty() ? "" : "</rect>\n");
}

// The edge of a label that is nearest to its point, where a leader is worth drawing.
std::string leader(double x, double y, const Box& box) {
  const double tx = std::clamp(x, box.left, box.right), ty = std::clamp(y, box.top, box.bottom);
  return std::hypot(tx - x, ty - y) < 12 ? "" : line(x, y, tx, ty, "leader");
}

struct Rgb {
  double r, g, b;
};

// Dark to bright, evenly seen, safe for colour-blind readers (anchors of matplotlib's viridis).
Rgb shade(double t) {
  constexpr std::array<Rgb, 6> kAnchors = {
      {{68, 1, 84}, {65, 68, 135}, {42, 120, 142}, {34, 168, 132}, {122, 209, 81}, {253, 231, 37}}};
  const double at = std::clamp(t, 0.0, 1.0) * (kAnchors.size() - 1);
  const std::size_t i = std::min(static_cast<std::size_t>(at), kAnchors.size() - 2);
  const double f = at - static_cast<double>(i);
  const auto mix = [&](double a, double b) { return a + f * (b - a); };
  return {mix(kAnchors[i].r, kAnchors[i + 1].r), mix(kAnchors[i].g, kAnchors[i + 1].g),
          mix(kAnchors[i].b, kAnchors[i + 1].b)};
}

std::string hex(const Rgb& c) {
  return fmt::format("#{:02x}{:02x}{:02x}", static_cast<int>(c.r), static_cast<int>(c.g), static_cast<int>(c.b));
}

std::string heat_cell(const Box& box, double value, const HeatMap& map, const std::string& where) {
  if (std::isnan(value)) return "";
  const Rgb colour = std::isinf(value) ? Rgb{190, 190, 190} : shade((value - map.low) / (map.high - map.low));
  const bool bright = 0.299 * colour.r + 0.587 * colour.g + 0.114 * colour.b > 125;
  const std::string words = std::isinf(value) ? (value > 0 ? "exact" : "-inf") : fmt::format("{:.1f}", value + 0.0);
  return fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"><title>{}: {} {}</title></rect>\n",
                     box.left, box.top, box.right - box.left, box.bottom - box.top, hex(colour), escape(where), words,
                     escape(map.unit)) +
         fmt::format(
             "<text class=\"cell\" style=\"fill:{}\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
             bright ? "#111" : "#fff", (box.left + box.right) / 2, (box.top + box.bottom) / 2 + 3.5, words);
}

std::string colour_bar(const HeatMap& map, double x, double y) {
  constexpr int kSteps = 60;
  constexpr double kWidth = 240, kHeight = 10;
  std::string out;
  for (int i = 0; i < kSteps; ++i)
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n",
                       x + kWidth * i / kSteps, y, kWidth / kSteps + 0.5, kHeight,
                       hex(shade(static_cast<double>(i) / (kSteps - 1))));
  const Scale scale{map.low, map.high, false, x, x + kWidth};
  for (const double mark : ticks(map.low, map.high, false))
    out += text(scale(mark), y + 23, tick_text(mark), "text-anchor=\"middle\"");
  return out + text(x + kWidth + 14, y + 9, map.unit, "class=\"muted\"");
}

}  // namespace

std::string svg(const ScatterPlot& plot) {
  constexpr double kWidth = 1040, kHeight = 620;
  const Box area{70, 50, kWidth - 10, kHeight - 45};
  std::vector<double> xs, ys;
  std::vector<std::pair<double, double>> places;
  std::vector<std::string> labels;
  for (const Point& point : plot.points) {
    xs.push_back(point.x);
    ys.push_back(point.y);
    labels.push_back(point.label);
  }
  if (plot.points.empty()) return "";
  if (plot.reference) ys.push_back(*plot.reference);
  Scale sx = fit(xs, plot.x.logarithmic, area.left, area.right),
        sy = fit(ys, plot.y.logarithmic, area.bottom, area.top);
  for (const Point& point : plot.points) places.emplace_back(sx(point.x), sy(point.y));
  std::string out = open(kWidth, kHeight, plot.title) + axes(area, plot.x, plot.y, sx, sy);
  double legend = area.left;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    out += marker(legend + 6, 34, i, "") + text(legend + 16, 38, plot.series[i]);
    legend += 36 + text_width(plot.series[i]);
  }
  Box room = area;
  if (plot.reference) {
    const double y = sy(*plot.reference);
    out += line(area.left, y, area.right, y, "reference") +
           text(area.left + 8, y - 5, plot.reference_label, "class=\"muted\"");
    if (y > (area.top + area.bottom) / 2)
      room.bottom = y - 16;  // labels keep clear of the line where it bounds the points
  }
  const auto boxes = place_labels(places, labels, room);
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (boxes[i]) out += leader(places[i].first, places[i].second, *boxes[i]);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const Point& point = plot.points[i];
    out += marker(places[i].first, places[i].second, point.series,
                  fmt::format("{}: {} {}, {} {}", point.label, plot.x.label, tick_text(point.x), plot.y.label,
                              tick_text(point.y)));
    if (!boxes[i]) continue;
    const bool left =
        boxes[i]->right < places[i].first;  // of its point: the text ends there, however wide the reader's font is
    out += text(left ? boxes[i]->right : boxes[i]->left, boxes[i]->bottom - 3, point.label,
                left ? "text-anchor=\"end\"" : "");
  }
  return out + kClose;
}

std::string svg(const LinePlot& plot) {
  constexpr double kWidth = 1040, kHeight = 380, kLegend = 150;
  const Box area{70, 34, kWidth - kLegend, kHeight - 45};
  std::vector<double> ys;
  for (const auto& l : plot.lines) ys.insert(ys.end(), l.y.begin(), l.y.end());
  if (ys.empty() || plot.xs.size() < 2) return "";
  const Scale sx{plot.xs.front(), plot.xs.back(), plot.x.logarithmic, area.left + 10, area.right - 10},
      sy = fit(ys, plot.y.logarithmic, area.bottom, area.top);
  std::string out = open(kWidth, kHeight, plot.title) + axes(area, plot.x, plot.y, sx, sy);
  std::vector<double> ends;  // labels at the right end, moved apart from top to bottom
  std::vector<std::size_t> order(plot.lines.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return plot.lines[a].y.back() > plot.lines[b].y.back(); });
  double last = area.top - 10;
  for (const std::size_t i : order) {
    std::string points;
    for (std::size_t j = 0; j < plot.xs.size(); ++j)
      points += fmt::format("{:.1f},{:.1f} ", sx(plot.xs[j]), sy(plot.lines[i].y[j]));
    out += fmt::format("<polyline class=\"line s{}\" style=\"fill:none\" points=\"{}\"/>\n", i % 5, points);
    for (std::size_t j = 0; j < plot.xs.size(); ++j) out += marker(sx(plot.xs[j]), sy(plot.lines[i].y[j]), i, "");
    const double y = std::max(sy(plot.lines[i].y.back()), last + 14);
    last = y;
    out += line(area.right - 10, sy(plot.lines[i].y.back()), area.right + 8, y, "leader") +
           text(area.right + 12, y + 4, plot.lines[i].label);
  }
  return out + kClose;
}

std::string svg(const BarChart& chart) {
  constexpr double kWidth = 1040, kRow = 19, kTop = 30;
  if (chart.bars.empty()) return "";
  double labels = 0, texts = 0, most = chart.reference.value_or(0);
  for (const auto& bar : chart.bars) {
    labels = std::max(labels, text_width(bar.label));
    texts = std::max(texts, text_width(bar.text));
    most = std::max(most, bar.value);
  }
  const double left = labels + 12, right = kWidth - texts - 12,
               bottom = kTop + kRow * static_cast<double>(chart.bars.size());
  const Scale scale{0, most > 0 ? most : 1, false, left, right};
  std::string out = open(kWidth, bottom + 6, chart.title);
  if (chart.reference) out += line(scale(*chart.reference), kTop - 2, scale(*chart.reference), bottom + 2, "reference");
  for (std::size_t i = 0; i < chart.bars.size(); ++i) {
    const auto& bar = chart.bars[i];
    const double y = kTop + kRow * static_cast<double>(i);
    out += text(left - 6, y + 13, bar.label, "text-anchor=\"end\"");
    out += fmt::format("<rect class=\"s0\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\"/>\n", left, y + 3,
                       scale(bar.value) - left, kRow - 6);
    out += text(scale(bar.value) + 6, y + 13, bar.text);
  }
  return out + line(left, kTop - 2, left, bottom + 2, "axis") + kClose;
}

std::string svg(const HeatMap& map) {
  constexpr double kCell = 40, kRow = 18, kTop = 78, kColourBar = 330;
  double left = 0;
  for (const std::string& row : map.rows) left = std::max(left, text_width(row));
  left += 10;
  const double width = left + std::max(kCell * static_cast<double>(map.columns.size()), kColourBar),
               height = kTop + kRow * static_cast<double>(map.rows.size());
  std::string out = open(width, height + 4, map.title) + colour_bar(map, left, 26);
  out += text(left - 8, kTop - 7, map.column_label, "class=\"muted\" text-anchor=\"end\"");
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    out += text(left + kCell * (static_cast<double>(c) + 0.5), kTop - 7, map.columns[c], "text-anchor=\"middle\"");
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kTop + kRow * static_cast<double>(r);
    out += text(left - 8, y + 13, map.rows[r], "text-anchor=\"end\"");
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double x = left + kCell * static_cast<double>(c);
      out += heat_cell({x, y, x + kCell, y + kRow}, map.values[r][c], map, map.rows[r] + " at " + map.columns[c]);
    }
  }
  return out + kClose;
}

}  // namespace lowp::report
