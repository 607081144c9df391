#include "lowp/eval/windows.h"

#include <gtest/gtest.h>

#include <numeric>

namespace lowp::eval {
namespace {

std::vector<std::int32_t> count_up(int n) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

std::vector<std::int32_t> scored(const std::vector<Window>& windows) {
  std::vector<std::int32_t> ids;
  for (const Window& w : windows) {
    for (std::size_t i = w.first; i < w.tokens.size(); ++i) ids.push_back(w.tokens[i]);
    if (w.last) ids.push_back(*w.last);
  }
  return ids;
}

TEST(Windows, DisjointDropsTheRemainder) {
  const auto windows = disjoint_windows(count_up(11), 4);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(scored(windows), (std::vector<std::int32_t>{101, 102, 103, 105, 106, 107}));
  EXPECT_TRUE(disjoint_windows(count_up(3), 4).empty());
}

TEST(Windows, HalfScoresTheSecondHalf) {
  // llama.cpp: of 8 tokens the predictions at 4, 5, 6 are scored.
  const auto windows = half_windows(count_up(8), 8, 7);
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].tokens.front(), 7);
  EXPECT_EQ(scored(windows), (std::vector<std::int32_t>{105, 106, 107}));
}

TEST(Windows, RollingScoresEveryTokenOnce) {
  for (int n = 1; n < 30; ++n)
    for (int context = 1; context < 12; ++context) {
      const auto ids = count_up(n);
      const auto windows = rolling_windows(ids, context, 7);
      EXPECT_EQ(scored(windows), ids) << n << " " << context;
      for (const Window& w : windows) EXPECT_LE(w.tokens.size(), static_cast<std::size_t>(context));
    }
}

TEST(Windows, RollingAsLmEval) {
  // get_rolling_token_windows([0..9], prefix, max_seq_len 4, context_len 1): inputs and targets.
  std::vector<std::int32_t> ids(10);
  std::iota(ids.begin(), ids.end(), 0);
  const auto windows = rolling_windows(ids, 4, -1);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].tokens, (std::vector<std::int32_t>{-1, 0, 1, 2}));
  EXPECT_EQ(windows[1].tokens, (std::vector<std::int32_t>{3, 4, 5, 6}));
  EXPECT_EQ(windows[2].tokens, (std::vector<std::int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(windows[2].first, 3u);
  EXPECT_EQ(*windows[2].last, 9);
}

}  // namespace
}  // namespace lowp::eval
