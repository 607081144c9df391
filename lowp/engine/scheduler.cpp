#include "lowp/engine/scheduler.h"

#include <algorithm>

namespace lowp::engine {

std::vector<Slice> schedule(std::span<const Progress> sequences, const Budget& budget) {
  std::int64_t begun = std::count_if(sequences.begin(), sequences.end(), [](const Progress& p) { return p.begun; });
  std::vector<std::size_t> urgent, prompts;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Progress& p = sequences[i];
    if (p.pending <= 0) continue;
    if (p.generating) {
      urgent.push_back(i);
    } else if (p.begun || begun < budget.sequences) {
      begun += !p.begun;
      prompts.push_back(i);
    }
  }
  if (!prompts.empty()) urgent.push_back(prompts.front());
  std::sort(urgent.begin(), urgent.end(), [&](std::size_t a, std::size_t b) {
    const std::uint64_t x = sequences[a].waits_since, y = sequences[b].waits_since;
    return x != y ? x < y : a < b;
  });

  std::int64_t left = budget.tokens;
  std::vector<std::int64_t> tokens(sequences.size());
  for (const std::size_t i : urgent)
    if (left > 0) {
      tokens[i] = 1;
      --left;
    }
  for (const std::size_t i : prompts) {
    const std::int64_t more = std::min(left, sequences[i].pending - tokens[i]);
    tokens[i] += more;
    left -= more;
  }
  std::vector<Slice> slices;
  for (std::size_t i = 0; i < sequences.size(); ++i)
    if (tokens[i] > 0) slices.push_back({i, tokens[i]});
  return slices;
}

}  // namespace lowp::engine
