#include "lowp/report/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lowp::report {
namespace {

double sum(const std::vector<std::vector<Option>>& parts, const std::vector<std::size_t>& chosen,
           double Option::*what) {
  double total = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) total += parts[p][chosen[p]].*what;
  return total;
}

TEST(Allocation, SpendsWhereItHelps) {
  const std::vector<std::vector<Option>> parts = {{{2, 10}, {4, 1}, {8, 0}}, {{2, 1}, {4, 0.1}, {8, 0}}};
  EXPECT_EQ(allocate_bits(parts, 4), (std::vector<std::size_t>{0, 0}));
  EXPECT_EQ(allocate_bits(parts, 6), (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(allocate_bits(parts, 8), (std::vector<std::size_t>{1, 1}));
  EXPECT_EQ(allocate_bits(parts, 100), (std::vector<std::size_t>{2, 2}));
  EXPECT_EQ(allocate_bits(parts, 1), (std::vector<std::size_t>{0, 0})) << "the cheapest, even if that is too much";
}

TEST(Allocation, LeavesOutWhatOthersBeat) {
  const std::vector<std::vector<Option>> parts = {{{4, 2}, {4, 1}, {5, 3}, {6, 0.9}, {8, 0}}};
  EXPECT_EQ(allocate_bits(parts, 4), std::vector<std::size_t>{1});
  EXPECT_EQ(allocate_bits(parts, 7), std::vector<std::size_t>{1}) << "6 is above the line from 4 to 8";
}

// Against all combinations of small random problems: within the budget, and no worse than any uniform choice by more
// than the one step that may not fit.
TEST(Allocation, NearTheBestOfAllCombinations) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0.1, 1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<Option>> parts(5);
    double largest = 0;
    for (auto& part : parts) {
      const double size = uniform(random), harm = uniform(random);
      for (const double bits : {2.0, 3.0, 4.0, 6.0, 8.0}) part.push_back({bits * size, harm * std::pow(4, -bits)});
      largest = std::max(largest, part[0].loss - part[1].loss);
    }
    const double budget =
        4.3 * (parts[0][0].bits + parts[1][0].bits + parts[2][0].bits + parts[3][0].bits + parts[4][0].bits) / 2;
    const auto chosen = allocate_bits(parts, budget);
    EXPECT_LE(sum(parts, chosen, &Option::bits), budget);
    double best = 1e9;
    for (int code = 0; code < 3125; ++code) {
      std::vector<std::size_t> other;
      for (int p = 0, rest = code; p < 5; ++p, rest /= 5) other.push_back(static_cast<std::size_t>(rest % 5));
      if (sum(parts, other, &Option::bits) <= budget) best = std::min(best, sum(parts, other, &Option::loss));
    }
    EXPECT_LE(sum(parts, chosen, &Option::loss), best + largest);
  }
}

}  // namespace
}  // namespace lowp::report
