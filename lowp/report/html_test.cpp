#include "lowp/report/html.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lowp::report {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Escape, LeavesNoMarkup) {
  EXPECT_EQ(escape("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
  EXPECT_EQ(escape(std::string("x\0\x1b[", 4)), "x??[");
  EXPECT_EQ(escape("größe\n"), "größe\n");
}

TEST(NumberCell, SpellsWhatHasNoDigits) {
  EXPECT_EQ(number_cell(1.256, "{:.2f}").text, "1.26");
  EXPECT_EQ(number_cell(std::nullopt, "{:.2f}").text, "-");
  EXPECT_EQ(number_cell(NAN, "{:.2f}").text, "-");
  EXPECT_EQ(number_cell(INFINITY, "{:.2f}").text, "exact");
  EXPECT_EQ(number_cell(-INFINITY, "{:.2f}").text, "-inf");
}

TEST(HtmlTable, AlignsNumbersAndLinksNotes) {
  const Grid grid{"T",
                  {{"name", {}}, {"value", 1}},
                  {{{"<a>", {}}, {"1.5", 1.5}}, {{"b", {}}, {"-", {}}}, {{"c", {}}, {"exact", INFINITY}}}};
  const std::string html = html_table(grid);
  EXPECT_TRUE(contains(html, "<th>name</th><th class=\"n\">value<sup><a href=\"#note2\">2</a></sup></th>")) << html;
  EXPECT_TRUE(contains(html, "<td>&lt;a&gt;</td><td class=\"n\" data-value=\"1.5\">1.5</td>")) << html;
  EXPECT_TRUE(contains(html, "<td class=\"n\">-</td>")) << html;
  EXPECT_TRUE(contains(html, "data-value=\"Infinity\"")) << html;
}

TEST(HtmlPage, IsWholeAndNeedsNothingElse) {
  const std::string html = html_page("a & b", "measured", "<p>body</p>", {{"term", "x < y"}});
  EXPECT_TRUE(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
  EXPECT_TRUE(contains(html, "<title>a &amp; b</title>"));
  EXPECT_TRUE(contains(html, "<dt id=\"note1\">1</dt><dd><b>term</b>: x &lt; y</dd>"));
  for (const char* outside : {"http:", "https:", "src=", "@import", "<link"})
    EXPECT_FALSE(contains(html, outside)) << outside;
}

}  // namespace
}  // namespace lowp::report
