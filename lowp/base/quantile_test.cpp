#include "lowp/base/quantile.h"

#include <gtest/gtest.h>

namespace lowp {
namespace {

TEST(Quantile, InterpolatesBetweenNeighbours) {
  EXPECT_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_NEAR(quantile({1, 2, 3, 4}, 0.99), 3.97, 1e-12);
  EXPECT_EQ(quantile({3, 1, 2}, 1), 3);
  EXPECT_EQ(quantile({7}, 0.25), 7);
}

TEST(Median, OfOddAndEvenCounts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(median({7}), 7);
}

}  // namespace
}  // namespace lowp
