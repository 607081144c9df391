#include "lowp/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

namespace lowp::engine {
namespace {

using Slices = std::vector<std::pair<std::size_t, std::int64_t>>;

Slices plan(const std::vector<Progress>& sequences, const Budget& budget) {
  Slices out;
  for (const Slice& s : schedule(sequences, budget).slices) out.emplace_back(s.sequence, s.tokens);
  return out;
}

constexpr Progress kGenerating{.pending = 1, .begun = true, .generating = true};

TEST(Schedule, CutsPromptsInOrderOfArrival) {
  EXPECT_EQ(plan({{.pending = 700}}, {.tokens = 512}), (Slices{{0, 512}}));
  EXPECT_EQ(plan({{.pending = 300}, {.pending = 300}, {.pending = 300}}, {.tokens = 512}),
            (Slices{{0, 300}, {1, 212}}));
  EXPECT_EQ(plan({{.pending = 3}, kGenerating}, {.tokens = 2}), (Slices{{0, 1}, {1, 1}}));
  EXPECT_EQ(plan({kGenerating, {.pending = 300}, kGenerating}, {.tokens = 100}), (Slices{{0, 1}, {1, 98}, {2, 1}}));
}

TEST(Schedule, GivesPromptsLessBesideThoseThatGenerate) {
  const Budget budget{.tokens = 100, .prompt_tokens = 10};
  EXPECT_EQ(plan({{.pending = 300}}, budget), (Slices{{0, 100}}));
  EXPECT_EQ(plan({kGenerating, {.pending = 300}, {.pending = 300}}, budget), (Slices{{0, 1}, {1, 10}}));
  EXPECT_EQ(plan({{.pending = 7}, {.pending = 300}, kGenerating, {.pending = 300}}, budget),
            (Slices{{0, 7}, {1, 3}, {2, 1}}));
  EXPECT_EQ(plan({{.pending = 300}, kGenerating}, {.tokens = 5, .prompt_tokens = 10}), (Slices{{0, 4}, {1, 1}}));
  EXPECT_EQ(plan({{.pending = 300}, kGenerating}, {.tokens = 5, .prompt_tokens = 0}), (Slices{{0, 1}, {1, 1}}));
}

TEST(Schedule, ServesWhoWaitsLongest) {
  Progress a = kGenerating, b = kGenerating, c = kGenerating;
  a.waits_since = 5, b.waits_since = 3, c.waits_since = 4;
  EXPECT_EQ(plan({a, b, c}, {.tokens = 1}), (Slices{{1, 1}}));
  EXPECT_EQ(plan({a, b, c}, {.tokens = 2}), (Slices{{1, 1}, {2, 1}}));
}

TEST(Schedule, BeginsNoMoreThanTheBudgetSays) {
  const Progress fresh{.pending = 4}, begun{.pending = 4, .begun = true};
  EXPECT_EQ(plan({begun, fresh, fresh}, {.tokens = 100, .sequences = 2}), (Slices{{0, 4}, {1, 4}}));
  EXPECT_EQ(plan({kGenerating, kGenerating, fresh}, {.tokens = 100, .sequences = 2}), (Slices{{0, 1}, {1, 1}}));
}

TEST(Schedule, NothingFromNothing) {
  EXPECT_EQ(plan({}, {}), Slices{});
  EXPECT_EQ(plan({kGenerating}, {.tokens = 0}), Slices{});
  EXPECT_EQ(plan({kGenerating}, {.tokens = -5}), Slices{});
  EXPECT_EQ(plan({{.pending = 9}}, {.sequences = 0}), Slices{});
}

// A world without a model: requests of random sizes arrive at random times and are run as scheduled.
struct World {
  struct Item {
    int id;
    std::int64_t prompt, generate, seen = 0;
    std::uint64_t waits_since, started = 0;
  };
  std::mt19937 random;
  std::vector<Item> items = {};
  std::uint64_t step = 0;
  int next_id = 0;
  std::vector<int> starts = {};  // ids in the order in which they began

  std::int64_t any(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  }

  void arrive() {
    items.push_back({.id = next_id++, .prompt = any(1, 200), .generate = any(1, 30), .waits_since = step});
  }

  void run(const Budget& budget) {
    ++step;
    std::vector<Progress> progress;
    for (const Item& i : items)
      progress.push_back({.pending = std::max(i.prompt - i.seen, std::int64_t{1}),
                          .begun = i.seen > 0,
                          .generating = i.seen >= i.prompt,
                          .waits_since = i.waits_since});
    const std::vector<Slice> slices = schedule(progress, budget).slices;
    std::int64_t total = 0, of_prompts = 0, begun = 0;
    const bool generating =
        std::any_of(progress.begin(), progress.end(), [](const Progress& p) { return p.generating; });
    std::vector<bool> used(items.size());
    for (const Slice& s : slices) {
      ASSERT_LT(s.sequence, items.size());
      ASSERT_FALSE(used[s.sequence]);
      used[s.sequence] = true;
      Item& item = items[s.sequence];
      ASSERT_GE(s.tokens, 1);
      ASSERT_LE(s.tokens, progress[s.sequence].pending);
      if (item.seen == 0) starts.push_back(item.id);
      item.seen += s.tokens;
      item.waits_since = step;
      total += s.tokens;
      if (!progress[s.sequence].generating) of_prompts += s.tokens;
    }
    ASSERT_LE(total, budget.tokens);
    if (generating) ASSERT_LE(of_prompts, budget.prompt_tokens);
    for (const Item& i : items) {
      begun += i.seen > 0;
      if (i.seen >= i.prompt)
        ASSERT_LE(step - i.waits_since, static_cast<std::uint64_t>(2 * budget.sequences + 2))
            << "a generating sequence starves";
    }
    ASSERT_LE(begun, budget.sequences);
    if (!items.empty()) ASSERT_GT(total, 0) << "work, but none done";
    const auto left_over = [&](const Item& i) { return i.seen < i.prompt && (i.seen > 0 || begun < budget.sequences); };
    if (std::any_of(items.begin(), items.end(), left_over))
      ASSERT_TRUE(total == budget.tokens || (generating && of_prompts == budget.prompt_tokens))
          << "budget left while a prompt waits";
    std::erase_if(items, [](const Item& i) { return i.seen >= i.prompt + i.generate; });
  }
};

TEST(Schedule, RandomTracesKeepTheirPromises) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    World world{.random = std::mt19937(seed)};
    const Budget budget{.tokens = world.any(1, seed % 3 == 0 ? 4 : 300),
                        .sequences = world.any(1, 12),
                        .prompt_tokens = world.any(1, seed % 2 == 0 ? 300 : 20)};
    const std::int64_t rate = world.any(0, 3);
    for (int t = 0; t < 200 && !HasFatalFailure(); ++t) {
      for (std::int64_t i = world.any(0, rate); i > 0; --i) world.arrive();
      if (!world.items.empty() && world.any(0, 20) == 0)
        world.items.erase(world.items.begin() + world.any(0, static_cast<std::int64_t>(world.items.size()) - 1));
      world.run(budget);
    }
    const std::int64_t work =
        std::accumulate(world.items.begin(), world.items.end(), std::int64_t{0},
                        [](std::int64_t sum, const auto& i) { return sum + i.prompt + i.generate - i.seen; });
    for (std::int64_t t = 0; t < work && !HasFatalFailure(); ++t) world.run(budget);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    EXPECT_TRUE(world.items.empty()) << "seed " << seed;
    EXPECT_TRUE(std::is_sorted(world.starts.begin(), world.starts.end())) << "seed " << seed;
  }
}

// The same with memory that does not hold everybody: everything ends nevertheless, and no page is used twice.
struct SmallWorld {
  struct Item {
    std::int64_t prompt, generate, seen = 0, made = 0, pages = 0;
    bool begun = false;
    std::uint64_t waits_since = 0;
    std::int64_t known() const { return prompt + made; }
  };
  const Memory memory;  // of the whole
  std::vector<Item> items = {};
  std::uint64_t step = 0;
  int preemptions = 0;

  Plan ask(const Budget& budget) const {
    Memory now = memory;
    std::vector<Progress> progress;
    for (const Item& i : items) {
      now.free_pages -= i.pages;
      progress.push_back({.pending = i.known() - i.seen,
                          .begun = i.begun,
                          .generating = i.begun && i.made > 0 && i.known() - i.seen == 1,
                          .waits_since = i.waits_since,
                          .seen = i.seen,
                          .pages = i.pages});
    }
    return schedule(progress, budget, now);
  }

  void run(const Budget& budget) {
    ++step;
    Plan plan = ask(budget);
    for (; plan.preempt; plan = ask(budget)) {
      Item& victim = items[*plan.preempt];
      ASSERT_TRUE(victim.begun && plan.slices.empty());
      for (std::size_t later = *plan.preempt + 1; later < items.size(); ++later) ASSERT_FALSE(items[later].begun);
      victim.seen = victim.pages = 0;
      victim.begun = false;
      ++preemptions;
    }
    ASSERT_TRUE(items.empty() || !plan.slices.empty()) << "work, but none done";
    std::int64_t used = 0;
    for (const Slice& slice : plan.slices) {
      Item& item = items[slice.sequence];
      item.begun = true;
      item.seen += slice.tokens;
      item.waits_since = step;
      item.pages = (item.seen + memory.page_tokens - 1) / memory.page_tokens;
      if (item.seen == item.known()) ++item.made;
    }
    for (const Item& item : items) used += item.pages;
    ASSERT_LE(used, memory.free_pages);
    std::erase_if(items, [](const Item& i) { return i.made > i.generate; });
  }
};

TEST(Schedule, EverythingEndsInLittleMemory) {
  int preemptions = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto any = [&](std::int64_t low, std::int64_t high) {
      return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    SmallWorld world{.memory = {.page_tokens = any(1, 16), .free_pages = any(4, 40)}};
    const std::int64_t most = world.memory.page_tokens * world.memory.free_pages;
    const Budget budget{.tokens = any(1, 64), .sequences = any(1, 12), .prompt_tokens = any(1, 64)};
    for (int i = 0; i < 20; ++i) {
      const std::int64_t prompt = any(1, most - 1);
      world.items.push_back({.prompt = prompt, .generate = any(1, most - prompt)});
    }
    for (int t = 0; t < 100'000 && !world.items.empty() && !HasFatalFailure(); ++t) world.run(budget);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    EXPECT_TRUE(world.items.empty()) << "seed " << seed;
    preemptions += world.preemptions;
  }
  EXPECT_GT(preemptions, 0);
}

}  // namespace
}  // namespace lowp::engine
