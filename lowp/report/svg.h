// Plots as inline SVG, each in a box that scrolls where the page is narrow. Colours come from the page's style (classes
// s0 to s4), so that they suit light and dark.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lowp::report {

/// Maps [low, high] to [from, to], linearly or by the logarithm. An empty interval maps to the middle.
struct Scale {
  double low = 0, high = 1;
  bool logarithmic = false;
  double from = 0, to = 1;

  double operator()(double value) const;
};

/// Round positions within [low, high] for about `count` marks: multiples of 1, 2 or 5 times a power of ten; on a
/// logarithmic axis 1, 2, 5 (or powers of ten alone) times powers of ten, and multiples where those are fewer than
/// three.
std::vector<double> ticks(double low, double high, bool logarithmic, int count = 6);

/// "0.002", "3", "1e+06": at most five significant digits.
std::string tick_text(double value);

/// Width of a text in pixels at 11 px, roughly.
double text_width(const std::string& text);

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  bool overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
  bool contains(const Box& other) const {
    return left <= other.left && other.right <= right && top <= other.top && other.bottom <= bottom;
  }
};

/// Where labels of these sizes go: near their points, within `area`, over no other label and over no point. nullopt
/// where there is no room. Deterministic.
std::vector<std::optional<Box>> place_labels(const std::vector<std::pair<double, double>>& points,
                                             const std::vector<std::string>& labels, const Box& area);

struct Axis {
  std::string label;
  bool logarithmic = false;
};

/// A value with a label.
struct Point {
  double x = 0, y = 0;
  std::string label;
  std::size_t series = 0;
};

struct ScatterPlot {
  std::string title;
  Axis x, y;
  std::vector<std::string> series;  // names, in the order of classes s0, s1, ...
  std::vector<Point> points;
  std::optional<double> reference;  // a horizontal line
  std::string reference_label;
};

struct LinePlot {
  struct Line {
    std::string label;
    std::vector<double> y;  // one for each x
  };
  std::string title;
  Axis x, y;
  std::vector<double> xs;
  std::vector<Line> lines;
};

struct BarChart {
  struct Bar {
    std::string label;
    double value = 0;
    std::string text;  // at the bar's end
  };
  std::string title;
  std::vector<Bar> bars;
  std::optional<double> reference;  // a vertical line
};

/// Numbers in coloured cells. Colours span [low, high]; values beyond take the end's colour, infinities a neutral one;
/// NaN leaves a cell empty.
struct HeatMap {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::string> rows;
  std::vector<std::vector<double>> values;  // [rows][columns]
  double low = 0, high = 1;
  std::string unit;
  std::string column_label;
};

std::string svg(const ScatterPlot& plot);
std::string svg(const LinePlot& plot);
std::string svg(const BarChart& chart);
std::string svg(const HeatMap& map);

}  // namespace lowp::report
