#include "lowp/quant/channel_scales.h"

#include <algorithm>
#include <cmath>

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;

std::vector<float> inverse(const Site& site, const std::vector<float>& factors, std::int64_t rows) {
  std::vector<float> result(static_cast<std::size_t>(rows));
  for (std::size_t c = 0; c < factors.size(); ++c)
    result[site.rows.empty() ? c : static_cast<std::size_t>(site.rows[c])] = 1 / factors[c];
  return result;
}

void multiply(std::vector<float>& into, const std::vector<float>& factors) {
  if (into.empty()) into.assign(factors.size(), 1.0f);
  for (std::size_t i = 0; i < factors.size(); ++i) into[i] *= factors[i];
}

// Largest magnitudes of the columns of a weight.
std::vector<float> column_amax(const Checkpoint& checkpoint, const std::string& module) {
  const TensorView x = checkpoint.find(module + ".weight")->view();
  const std::int64_t m = x.shape[0], k = x.shape[1];
  std::vector<float> amax(static_cast<std::size_t>(k)), row(amax.size());
  for (std::int64_t r = 0; r < m; ++r) {
    load_f32(x, r * k, k, row.data());
    for (std::size_t c = 0; c < row.size(); ++c) amax[c] = std::max(amax[c], std::fabs(row[c]));
  }
  return amax;
}

}  // namespace

void share_factors(const Site& site, std::vector<float>& factors) {
  if (site.rows.empty()) return;
  std::map<std::int64_t, std::pair<double, int>> sums;
  for (std::size_t c = 0; c < factors.size(); ++c) {
    auto& [sum, count] = sums[site.rows[c]];
    sum += std::log(static_cast<double>(factors[c]));
    ++count;
  }
  for (std::size_t c = 0; c < factors.size(); ++c) {
    const auto& [sum, count] = sums.at(site.rows[c]);
    factors[c] = static_cast<float>(std::exp(sum / count));
  }
}

Rewriting rescale(const Checkpoint& checkpoint, const ChooseFactors& choose) {
  const bool adds_one = norms_add_one(rewritable_config(checkpoint));
  Rewriting result;
  for (const Site& site : sites(checkpoint)) {
    std::vector<float> factors = choose(site);
    if (factors.empty()) continue;
    for (const std::string& reader : site.readers) multiply(result.tensors[reader + ".weight"].columns, factors);
    if (!site.norm.empty()) {
      Rewrite& norm = result.tensors[site.norm];
      norm.adds_one = adds_one;
      multiply(norm.columns, inverse(site, factors, site.channels));
      continue;
    }
    const std::int64_t rows = checkpoint.find(site.maker + ".weight")->entry.shape[0];
    multiply(result.tensors[site.maker + ".weight"].rows, inverse(site, factors, rows));
    if (checkpoint.find(site.maker + ".bias"))
      multiply(result.tensors[site.maker + ".bias"].columns, inverse(site, factors, rows));
  }
  return result;
}

Rewriting smoothquant(const Checkpoint& checkpoint, CalibratedInputs& inputs) {
  return rescale(checkpoint, [&](const Site& site) {
    std::vector<float> input(static_cast<std::size_t>(site.channels)), weight(input.size());
    for (const std::string& reader : site.readers) {
      const auto stats = inputs.find(reader);
      if (!stats) return std::vector<float>();
      const std::vector<float> amax = column_amax(checkpoint, reader);
      for (std::size_t c = 0; c < input.size(); ++c) {
        input[c] = std::max(input[c], stats->amax[c]);
        weight[c] = std::max(weight[c], amax[c]);
      }
    }
    std::vector<float> factors(input.size(), 1.0f);
    for (std::size_t c = 0; c < factors.size(); ++c)
      if (input[c] > 0 && weight[c] > 0) factors[c] = std::sqrt(input[c] / weight[c]);
    share_factors(site, factors);
    return factors;
  });
}

}  // namespace lowp::quant
