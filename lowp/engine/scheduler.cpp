#include "lowp/engine/scheduler.h"

#include <algorithm>

#include "lowp/base/bits.h"

namespace lowp::engine {

Plan schedule(std::span<const Progress> sequences, const Budget& budget, const Memory& memory) {
  const auto more_pages = [&](const Progress& p, std::int64_t tokens) {
    return std::max(ceil_div(p.seen + tokens, memory.page_tokens) - p.pages, std::int64_t{0});
  };
  std::int64_t begun = 0, free = memory.free_pages;
  std::size_t newest = 0;  // of those that have begun
  std::vector<std::size_t> urgent, waiting;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Progress& p = sequences[i];
    if (p.begun) {
      ++begun;
      newest = i;
    }
    if (p.pending <= 0) continue;
    if (p.generating) {
      urgent.push_back(i);
      free -= more_pages(p, 1);
    } else {
      waiting.push_back(i);
    }
  }
  if (free < 0) return {.preempt = newest};

  // Prompts in order, each with the tokens that memory has room for.
  std::vector<std::size_t> prompts;
  std::vector<std::int64_t> most(sequences.size(), 1), tokens(sequences.size());
  for (const std::size_t i : waiting) {
    const Progress& p = sequences[i];
    if (!p.begun) {
      const std::int64_t headroom = begun;
      if (begun >= budget.sequences || (begun > 0 && more_pages(p, p.pending + 1) + headroom > free)) break;
      ++begun;
    }
    most[i] = p.pending;
    if (free < more_pages(p, p.pending)) most[i] = (p.pages + free) * memory.page_tokens - p.seen;
    free -= std::min(free, more_pages(p, p.pending + 1));
    if (most[i] > 0) prompts.push_back(i);
  }
  if (urgent.empty() && prompts.empty() && begun > 1) return {.preempt = newest};

  std::int64_t left = budget.tokens, of_prompts = urgent.empty() ? left : std::min(left, budget.prompt_tokens);
  if (!prompts.empty()) urgent.push_back(prompts.front());
  std::sort(urgent.begin(), urgent.end(), [&](std::size_t a, std::size_t b) {
    const std::uint64_t x = sequences[a].waits_since, y = sequences[b].waits_since;
    return x != y ? x < y : a < b;
  });
  for (const std::size_t i : urgent)
    if (left > 0) {
      tokens[i] = 1;
      --left;
    }
  if (!prompts.empty()) of_prompts = std::max(of_prompts - tokens[prompts.front()], std::int64_t{0});
  for (const std::size_t i : prompts) {
    const std::int64_t more = std::min({left, of_prompts, most[i] - tokens[i]});
    tokens[i] += more;
    left -= more;
    of_prompts -= more;
  }
  Plan plan;
  for (std::size_t i = 0; i < sequences.size(); ++i)
    if (tokens[i] > 0) plan.slices.push_back({i, tokens[i]});
  return plan;
}

}  // namespace lowp::engine
