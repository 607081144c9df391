#include "bench/row.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lowp/base/error.h"
#include "tests/temp_dir.h"

namespace lowp::bench {
namespace {

Row sample_row() {
  Row row;
  row.op = "cast:bf16";
  row.recipe = "mxfp8";
  row.m = 2;
  row.k = 32;
  row.seconds = 0.5;
  row.limit_name = "copy";
  row.samples = {0.4, 0.5, 0.6};
  return row;
}

TEST(Row, HasExactlyTheKeysOfTheDesignAndComesBack) {
  const Json json = to_json(sample_row());
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  std::vector<std::string> expected = {"op",      "recipe",       "m",     "n",          "k",     "device",
                                       "seconds", "bytes",        "flop",  "limit_name", "limit", "share",
                                       "peer",    "peer_seconds", "ratio", "samples"};
  std::sort(keys.begin(), keys.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(keys, expected);

  const TempDir dir;
  const std::vector<Row> rows = read_rows(dir.write("rows.json", json.dump() + "\n\n" + json.dump() + "\n"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(to_json(rows[1]), json);
}

TEST(Row, ComparisonMatchesOnWhatWasMeasured) {
  Row other = sample_row(), different = sample_row();
  other.seconds = 1;
  different.k = 64;
  std::vector<Row> rows = {sample_row(), different};
  EXPECT_EQ(compare(rows, {&other, 1}, "before.json"), 1u);
  EXPECT_EQ(rows[0].ratio, 2);
  EXPECT_EQ(rows[0].peer, "before.json");
  EXPECT_FALSE(rows[1].ratio);
}

TEST(Row, BadFilesNameTheirLine) {
  const TempDir dir;
  for (const char* bad : {"{\"op\": 1}", "[]", "{", "\"x\""}) {
    const std::string path = dir.write("rows.json", to_json(sample_row()).dump() + "\n" + bad + "\n");
    try {
      read_rows(path);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("line 2"), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(read_rows(dir / "missing"), Error);
}

}  // namespace
}  // namespace lowp::bench
