#include "lowp/report/svg.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lowp::report {
namespace {

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

TEST(Scale, MapsEndsAndMiddle) {
  const Scale linear{0, 10, false, 100, 0}, logarithmic{1, 100, true, 0, 10}, empty{3, 3, false, 0, 8};
  EXPECT_DOUBLE_EQ(linear(0), 100);
  EXPECT_DOUBLE_EQ(linear(2.5), 75);
  EXPECT_DOUBLE_EQ(logarithmic(10), 5);
  EXPECT_DOUBLE_EQ(empty(3), 4);
}

TEST(Ticks, AreRoundAndWithin) {
  EXPECT_EQ(ticks(0, 10, false, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(ticks(0, 50, false, 6), (std::vector<double>{0, 10, 20, 30, 40, 50}));
  EXPECT_EQ(ticks(1, 10, true), (std::vector<double>{1, 2, 5, 10}));
  EXPECT_EQ(ticks(4, 4, false), std::vector<double>{4});
  for (const auto& [low, high] : {std::pair{0.0017, 3.2}, {8.1, 8.4}, {1e-9, 1e9}, {3.7, 3.7001}})
    for (const bool logarithmic : {false, true}) {
      const auto marks = ticks(low, high, logarithmic);
      EXPECT_GE(marks.size(), 3u) << low << " " << high;
      EXPECT_LE(marks.size(), 20u) << low << " " << high;
      for (const double mark : marks)
        EXPECT_TRUE(mark >= (logarithmic ? low * 0.999 : low - 1e-6 * (high - low)) && mark <= high * 1.001) << mark;
    }
}

TEST(TickText, IsShort) {
  EXPECT_EQ(tick_text(0.30000000000000004), "0.3");
  EXPECT_EQ(tick_text(0), "0");
  EXPECT_EQ(tick_text(1e-17), "0");
  EXPECT_EQ(tick_text(2000), "2000");
}

TEST(PlaceLabels, NeverOverlapAndStayInside) {
  const Box area{0, 0, 800, 500};
  std::vector<std::pair<double, double>> points;
  std::vector<std::string> labels;
  for (int i = 0; i < 40; ++i) {  // clusters, some at the edge
    points.emplace_back(i % 4 * 255 + i % 3 * 7 + 8, 60 + i * 10.0);
    labels.push_back("label_number_" + std::to_string(i));
  }
  const auto boxes = place_labels(points, labels, area);
  std::size_t placed = 0;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    if (!boxes[i]) continue;
    ++placed;
    EXPECT_TRUE(area.contains(*boxes[i]));
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(boxes[j] && boxes[i]->overlaps(*boxes[j])) << i << " " << j;
    for (const auto& [x, y] : points) EXPECT_FALSE(boxes[i]->overlaps({x - 1, y - 1, x + 1, y + 1}));
  }
  EXPECT_GE(placed, 38u);
}

TEST(PlaceLabels, LeavesOutWhatHasNoRoom) {
  const auto boxes = place_labels({{5, 5}, {5, 5}}, {"a long label", "b"}, {0, 0, 30, 30});
  EXPECT_FALSE(boxes[0]);
}

TEST(Svg, ScatterMarksEveryPointAndEscapes) {
  const ScatterPlot plot{.title = "a<b",
                         .x = {"x", true},
                         .y = {"y", true},
                         .series = {"one", "two"},
                         .points = {{4, 0.1, "p&q", 0}, {8, 0.001, "r", 1}},
                         .reference = 0.01,
                         .reference_label = "ref"};
  const std::string out = svg(plot);
  EXPECT_TRUE(out.starts_with("<div class=\"wide\"><svg ") && out.ends_with("</svg></div>\n"));
  EXPECT_EQ(occurrences(out, "<title>"), 2u);
  EXPECT_EQ(occurrences(out, "p&amp;q"), 2u);  // beside the point and in its title
  EXPECT_EQ(occurrences(out, "a&lt;b"), 2u);
  EXPECT_EQ(occurrences(out, "class=\"reference\""), 1u);
  EXPECT_EQ(occurrences(out, "nan"), 0u);
}

TEST(Svg, NothingToShowIsNothing) {
  EXPECT_EQ(svg(ScatterPlot{}), "");
  EXPECT_EQ(svg(BarChart{}), "");
  EXPECT_EQ(svg(LinePlot{}), "");
}

TEST(Svg, BarsStartAtZero) {
  const std::string out = svg(BarChart{"t", {{"a", 2, "2"}, {"b", 1, "1"}}, 2.0});
  EXPECT_EQ(occurrences(out, "<rect"), 2u);
  EXPECT_EQ(occurrences(out, "class=\"reference\""), 1u);
}

TEST(Svg, HeatMapSpellsInfinities) {
  const std::string out = svg(HeatMap{"t", {"c"}, {"r1", "r2"}, {{INFINITY}, {12.34}}, 0, 50, "dB", "columns"});
  EXPECT_EQ(occurrences(out, ">exact</text>"), 1u);
  EXPECT_EQ(occurrences(out, ">12.3</text>"), 1u);
}

}  // namespace
}  // namespace lowp::report
