#include "lowp/base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace lowp {
namespace {

// Restores the thread count that a test changes.
class Threads : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_thread_count(GetParam()); }
  void TearDown() override { set_thread_count(before_); }
  const int before_ = thread_count();
};

std::vector<int> visits(std::int64_t count, std::int64_t grain) {
  std::vector<int> seen(static_cast<std::size_t>(count));
  parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    EXPECT_LT(begin, end);
    EXPECT_TRUE(end - begin >= std::min(grain, count) || end - begin >= count / 64) << begin << " " << end;
    for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
  });
  return seen;
}

TEST_P(Threads, EveryIndexOnce) {
  EXPECT_EQ(thread_count(), GetParam());
  for (const std::int64_t count : {0, 1, 2, 63, 64, 65, 1000})
    for (const std::int64_t grain : {0, 1, 7, 5000})
      EXPECT_EQ(visits(count, grain), std::vector<int>(static_cast<std::size_t>(count), 1)) << count << " " << grain;
}

// Many short loops, so that workers are met awake, asleep and in between.
TEST_P(Threads, ManyLoops) {
  std::vector<std::int64_t> sums(64);
  for (int round = 0; round < 3000; ++round) {
    parallel_for(64, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) sums[static_cast<std::size_t>(i)] += i;
    });
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::int64_t i = 0; i < 64; ++i) EXPECT_EQ(sums[static_cast<std::size_t>(i)], 3000 * i);
}

TEST_P(Threads, FirstExceptionIsRethrownAndThePoolGoesOn) {
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(parallel_for(100, 1,
                              [](std::int64_t begin, std::int64_t) {
                                if (begin % 3 == 0) throw std::runtime_error("of a chunk");
                              }),
                 std::runtime_error);
    EXPECT_EQ(visits(100, 1), std::vector<int>(100, 1));
  }
}

TEST_P(Threads, NestedLoopsRun) {
  std::atomic<int> inner{0};
  parallel_for(8, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      parallel_for(10, 1, [&](std::int64_t from, std::int64_t to) { inner += static_cast<int>(to - from); });
  });
  EXPECT_EQ(inner, 80);
}

TEST_P(Threads, LoopsOfSeveralThreadsRun) {
  std::vector<std::jthread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([] {
      for (int round = 0; round < 200; ++round) EXPECT_EQ(visits(100, 1), std::vector<int>(100, 1));
    });
}

INSTANTIATE_TEST_SUITE_P(Counts, Threads, testing::Values(1, 2, 3, 16), testing::PrintToStringParamName());

}  // namespace
}  // namespace lowp
