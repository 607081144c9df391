#include "lowp/report/model_report.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"

namespace lowp::report {
namespace {

std::vector<std::string> names(const std::string& list) {
  std::vector<std::string> found;
  for (const auto& recipe : parse_recipes(list)) found.push_back(recipe.name);
  return found;
}

TEST(ParseRecipes, ResolvesAliasesOnceEach) {
  EXPECT_EQ(names("int4, mxfp8,int4_g128-bf16 ,bf16"), (std::vector<std::string>{"int4_g128-bf16", "mxfp8-mxfp8"}));
  EXPECT_EQ(names("demo").size(), formats::demo_recipe_names().size() - 1);  // without bf16
  EXPECT_EQ(names("demo,int4,int8-int8_static").size(), formats::demo_recipe_names().size());
}

TEST(ParseRecipes, NamesTheNearest) {
  for (const auto& [list, words] : {std::pair{"int4,mxpf8", "did you mean 'mxfp8'"},
                                    {"int4,,mxfp8", "empty name"},
                                    {"", "empty name"},
                                    {"int4,", "empty name"}})
    try {
      parse_recipes(list);
      ADD_FAILURE() << list;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::usage);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
}

TEST(ParseMethods, KnowsThree) {
  EXPECT_EQ(parse_methods("rolling,half,rolling"),
            (std::vector<eval::Method>{eval::Method::rolling, eval::Method::half}));
  EXPECT_THROW(parse_methods("roling"), Error);
}

ModelRow row(const std::string& recipe, double rate) {
  ModelRow row;
  row.recipe = row.weight = recipe;
  row.activation = "bf16";
  row.bits_per_weight = 4;
  row.speed = Speed{128, 64, 3, 128 / (10 * rate), 64 / rate, 1000000, 5000000};
  row.perplexity.emplace_back().perplexity = 2.7182818;
  return row;
}

ModelReport example() {
  ModelReport report{{"a CPU", 2, "today", "0"},          "m", "bf16", "text.txt", "", {eval::Method::disjoint},
                     {row("bf16", 100), row("x<y", 250)}, {},  1};
  report.rows[1].perplexity[0].kl = eval::Divergence{.mean = 0.01, .top1 = 0.9};
  ModelRow& misfit = report.rows.emplace_back();
  misfit.recipe = "no";
  misfit.refusal = "K = 100";
  return report;
}

TEST(ModelReport, TablesHoldEveryColumn) {
  const auto tables = grids(example());
  ASSERT_EQ(tables.size(), 3u);
  for (const Grid& grid : tables)
    for (const auto& cells : grid.rows) EXPECT_EQ(cells.size(), grid.columns.size());
  EXPECT_EQ(tables[1].rows[1][2].text, "2.50");
  EXPECT_EQ(tables[2].rows[0][1].text, "K = 100");
}

TEST(ModelReport, JsonHasSpeedUpAndNulls) {
  const Json json = to_json(example());
  EXPECT_DOUBLE_EQ(json["rows"][1]["speed"]["decode_speedup"].get<double>(), 2.5);
  EXPECT_TRUE(json["rows"][0]["kl"].is_null());
  EXPECT_TRUE(json["task"].is_null());
  EXPECT_EQ(json["rows"][2]["refused"], "K = 100");
  EXPECT_TRUE(json["notes"].contains("left out"));
}

TEST(ModelReport, HtmlSaysWhereAndEscapes) {
  const std::string page = html(example());
  EXPECT_NE(page.find("measured on a CPU, 2 threads, today"), std::string::npos);
  EXPECT_NE(page.find("x&lt;y"), std::string::npos);
  EXPECT_EQ(page.find("x<y"), std::string::npos);
}

TEST(ModelReport, WarnsOfAMachineThatWasBusy) {
  ModelReport report = example();
  const auto note = [&] { return to_json(report)["notes"]["speed-up"].get<std::string>(); };
  report.again = report.rows[0].speed;
  EXPECT_EQ(note().find("WARNING"), std::string::npos);
  report.again = row("bf16", 200).speed;
  EXPECT_NE(note().find("+100 % against the beginning. WARNING"), std::string::npos) << note();
}

TEST(ModelReport, PlotsLeaveOutWhatIsFarOff) {
  ModelReport report = example();
  report.rows[1].perplexity[0].perplexity = 1e9;
  EXPECT_NE(html(report).find("Not plotted, perplexity beyond 2 times the original's: x&lt;y (1e+09)"),
            std::string::npos);
}

TEST(Speed, SurvivesTheWayToItsParent) {
  const Speed speed{128, 64, 5, 0.25, 0.5, 1000, 2000};
  const Speed back = parse_speed(to_json(speed));
  EXPECT_EQ(back.runs, 5);
  EXPECT_DOUBLE_EQ(back.decode_rate(), 128);
  EXPECT_DOUBLE_EQ(back.bandwidth(), 128000);
  EXPECT_THROW(parse_speed(Json::object()), Error);
}

}  // namespace
}  // namespace lowp::report
