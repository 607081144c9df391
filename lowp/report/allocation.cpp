#include "lowp/report/allocation.h"

#include <algorithm>
#include <numeric>

#include "lowp/base/error.h"

namespace lowp::report {
namespace {

// Indices of the options on the lower convex hull, from the cheapest to the one of least loss.
std::vector<std::size_t> hull(const std::vector<Option>& options) {
  std::vector<std::size_t> order(options.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return options[a].bits != options[b].bits ? options[a].bits < options[b].bits : options[a].loss < options[b].loss;
  });
  const auto slope = [&](std::size_t a, std::size_t b) {
    return (options[b].loss - options[a].loss) / (options[b].bits - options[a].bits);
  };
  std::vector<std::size_t> chain;
  for (const std::size_t i : order) {
    if (!chain.empty() &&
        (options[i].loss >= options[chain.back()].loss || options[i].bits == options[chain.back()].bits))
      continue;
    while (chain.size() >= 2 && slope(chain[chain.size() - 2], chain.back()) >= slope(chain.back(), i))
      chain.pop_back();
    chain.push_back(i);
  }
  return chain;
}

struct Step {
  std::size_t part, place;  // from place - 1 on the part's hull
  double bits, gain;        // what it costs more and saves
};

}  // namespace

std::vector<std::size_t> allocate_bits(const std::vector<std::vector<Option>>& parts, double budget) {
  std::vector<std::vector<std::size_t>> hulls;
  std::vector<Step> steps;
  double spent = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    LOWP_CHECK(!parts[p].empty(), "part {} has no options", p);
    hulls.push_back(hull(parts[p]));
    const std::vector<std::size_t>& chain = hulls.back();
    spent += parts[p][chain.front()].bits;
    for (std::size_t i = 1; i < chain.size(); ++i) {
      const Option &from = parts[p][chain[i - 1]], &to = parts[p][chain[i]];
      steps.push_back({p, i, to.bits - from.bits, from.loss - to.loss});
    }
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.gain * b.bits > b.gain * a.bits; });
  std::vector<std::size_t> place(parts.size());
  for (const Step& step : steps) {
    if (place[step.part] + 1 != step.place || spent + step.bits > budget) continue;
    place[step.part] = step.place;
    spent += step.bits;
  }
  std::vector<std::size_t> chosen;
  for (std::size_t p = 0; p < parts.size(); ++p) chosen.push_back(hulls[p][place[p]]);
  return chosen;
}

}  // namespace lowp::report
