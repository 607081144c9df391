#include "bench/load.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/serve_bench.h"

namespace lowp::bench {
namespace {

TEST(Load, RandomLengthsAndIds) {
  const RandomLoad what{.count = 50, .input = 20, .output = 10, .prefix = 5, .ratio = 0.5, .vocab_size = 30, .seed = 3};
  const auto load = random_load(what);
  ASSERT_EQ(load.size(), 50u);
  for (const LoadRequest& r : load) {
    const auto ids = r.prompt.get<std::vector<int>>();
    EXPECT_EQ(static_cast<std::int64_t>(ids.size()), r.prompt_tokens);
    EXPECT_GE(r.prompt_tokens, 15);
    EXPECT_LE(r.prompt_tokens, 35);
    EXPECT_GE(r.output_tokens, 5);
    EXPECT_LE(r.output_tokens, 15);
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_TRUE(ids[i] >= 0 && ids[i] < 30);
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(ids[i], load[0].prompt[i].get<int>());
  }
  EXPECT_EQ(random_load(what)[7].prompt, load[7].prompt);
}

TEST(Load, ArrivalsTakeTheirTime) {
  for (const double burstiness : {0.3, 1.0, 5.0}) {
    const auto at = arrivals(100, 20, burstiness, 1);
    EXPECT_TRUE(std::is_sorted(at.begin(), at.end()));
    EXPECT_NEAR(at.back(), 5, 1e-9);
  }
  EXPECT_EQ(arrivals(3, std::numeric_limits<double>::infinity(), 1, 1), std::vector<double>(3, 0));
}

TEST(Serve, PercentilesAreNumpys) {
  EXPECT_EQ(percentile({4, 1, 3, 2}, 50), 2.5);
  EXPECT_NEAR(percentile({1, 2, 3, 4}, 99), 3.97, 1e-12);
  EXPECT_EQ(percentile({}, 99), 0);
  EXPECT_EQ(percentile({7}, 99), 7);
}

TEST(Serve, TheReportFollowsTheDefinitions) {
  ServeReport report;
  report.duration = 4;
  report.requests.push_back({.ok = true,
                             .begin = 0,
                             .first = 0.5,
                             .last = 2.5,
                             .chunks = {0.5, 1.0, 2.5},
                             .prompt_tokens = 10,
                             .output_tokens = 3});
  report.requests.push_back(
      {.ok = true, .begin = 1, .first = 1.25, .last = 1.25, .chunks = {1.25}, .prompt_tokens = 6, .output_tokens = 1});
  report.requests.push_back({.error = "status 429"});
  ServeBench bench;
  bench.goodput = {{"ttft", 300}};
  const Json json = report.json(bench);
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["total_input_tokens"], 16);
  EXPECT_EQ(json["output_throughput"], 1.0);
  EXPECT_EQ(json["total_token_throughput"], 5.0);
  EXPECT_EQ(json["request_goodput"], 0.25);
  EXPECT_EQ(json["mean_ttft_ms"], 375.0);
  EXPECT_EQ(json["mean_tpot_ms"], 1000.0);   // of the first only
  EXPECT_EQ(json["median_itl_ms"], 1000.0);  // 500 and 1500
  EXPECT_EQ(json["max_concurrent_requests"], 2);
  EXPECT_EQ(json["max_output_tokens_per_s"], 2.0);
  EXPECT_NE(report.text(bench).find("Output token throughput (tok/s):         1.00"), std::string::npos)
      << report.text(bench);
}

}  // namespace
}  // namespace lowp::bench
