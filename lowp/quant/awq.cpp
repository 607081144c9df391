#include "lowp/quant/awq.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/ops/cast.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;

constexpr int kGrid = 20;
constexpr std::int64_t kErrorRows = 32;  // that a thread takes at a time

// A reader that is quantized.
struct Reader {
  std::string module;
  formats::BlockFormat format;
  TensorView weight;
  std::shared_ptr<const ops::InputStats> inputs;
};

// The sum over rows d of d^T G d, d = (what quantizing the scaled weight leaves / factors) - weight.
double output_error(const Reader& reader, const std::vector<float>& factors) {
  const std::int64_t m = reader.weight.shape[0], k = reader.weight.shape[1];
  std::vector<float> original(static_cast<std::size_t>(m * k));
  load_f32(reader.weight, 0, m * k, original.data());
  Tensor scaled(DType::f32, {m, k});
  for (std::int64_t i = 0; i < m * k; ++i)
    scaled.as<float>()[i] = original[static_cast<std::size_t>(i)] * factors[static_cast<std::size_t>(i % k)];
  ops::CastOptions options;
  options.name = reader.module;
  const Tensor values = ops::dequantize(ops::quantize(scaled.view(), reader.format, options), DType::f32);
  std::vector<double> errors(static_cast<std::size_t>(ceil_div(m, kErrorRows)));
  parallel_for(ceil_div(m, kErrorRows), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> d(static_cast<std::size_t>(kErrorRows * k)), product(d.size());
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t first = tile * kErrorRows, rows = std::min(kErrorRows, m - first);
      for (std::int64_t i = 0; i < rows * k; ++i)
        d[i] = values.as<float>()[first * k + i] / factors[static_cast<std::size_t>(i % k)] - original[first * k + i];
      kernels::cpu::matmul_kernels().matmul(d.data(), rows, reader.inputs->gram.data(), k, k, product.data(), k);
      double sum = 0;
      for (std::int64_t i = 0; i < rows * k; ++i) sum += static_cast<double>(d[i]) * static_cast<double>(product[i]);
      errors[static_cast<std::size_t>(tile)] = sum;
    }
  });
  double sum = 0;
  for (const double error : errors) sum += error;
  return sum;
}

// rms^a, scaled so that the largest and the smallest are each other's inverse.
std::vector<float> powers(const std::vector<float>& mean_square, double a) {
  std::vector<float> factors(mean_square.size());
  float least = std::numeric_limits<float>::infinity(), most = 0;
  for (std::size_t c = 0; c < factors.size(); ++c) {
    factors[c] = std::max(static_cast<float>(std::pow(static_cast<double>(mean_square[c]), a / 2)), 1e-4f);
    least = std::min(least, factors[c]);
    most = std::max(most, factors[c]);
  }
  const float middle = std::sqrt(least * most);
  for (float& factor : factors) factor /= middle;
  return factors;
}

}  // namespace

namespace {

// All modules that awq() will ask for, in order.
std::vector<std::pair<std::string, std::int64_t>> readers_of(const Checkpoint& checkpoint) {
  std::vector<std::pair<std::string, std::int64_t>> modules;
  for (const Site& site : sites(checkpoint))
    for (const std::string& module : site.readers) modules.emplace_back(module, site.channels);
  return modules;
}

}  // namespace

Rewriting awq(const Checkpoint& checkpoint, CalibratedInputs& inputs, const FormatOf& format_of) {
  std::vector<std::pair<std::string, std::int64_t>> upcoming = readers_of(checkpoint);
  return rescale(checkpoint, [&](const Site& site) {
    const auto first = std::find_if(upcoming.begin(), upcoming.end(),
                                    [&](const auto& module) { return module.first == site.readers.front(); });
    upcoming.erase(upcoming.begin(), first);
    std::vector<Reader> readers;
    std::vector<float> mean_square(static_cast<std::size_t>(site.channels));
    for (const std::string& module : site.readers) {
      const auto format = format_of(module);
      if (!format) continue;
      const auto stats = inputs.with_gram(module, upcoming);
      if (!stats) return std::vector<float>();
      readers.push_back({module, *format, checkpoint.find(module + ".weight")->view(), stats});
      const std::vector<float> own = stats->mean_square();
      for (std::size_t c = 0; c < own.size(); ++c) mean_square[c] = std::max(mean_square[c], own[c]);
    }
    std::vector<float> best;
    double least = std::numeric_limits<double>::infinity();
    for (int step = 0; step < kGrid && !readers.empty(); ++step) {
      std::vector<float> factors = powers(mean_square, static_cast<double>(step) / kGrid);
      share_factors(site, factors);
      double error = 0;
      for (const Reader& reader : readers) error += output_error(reader, factors);
      if (error >= least) continue;
      least = error;
      best = std::move(factors);
    }
    return best;
  });
}

}  // namespace lowp::quant
