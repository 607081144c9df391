#include "lowp/kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "lowp/formats/codec.h"
#include "lowp/kernels/attention_e4m3.h"

namespace lowp::kernels::ref {
namespace {

float to_e4m3(float x) { return formats::decode(formats::Elem::e4m3, formats::encode(formats::Elem::e4m3, x)); }

}  // namespace

std::vector<float> attend_e4m3(std::span<const float> query, const CodedTokens& keys, const CodedTokens& values,
                               std::int64_t first, std::int64_t last, const E4m3Attention& how) {
  const std::size_t dim = query.size();
  float amax = 0;
  for (const float v : query) amax = std::isnan(v) ? v : std::max(amax, std::fabs(v));
  const E4m3Scales scales = e4m3_scales(how.amax ? *how.amax : amax);
  std::vector<float> codes, weights(kE4m3KeyTile), out(dim);
  for (const float v : query) codes.push_back(to_e4m3(v * scales.up));
  const float factor = how.scale * std::numbers::log2e_v<float> * scales.down;
  std::vector<double> mixed(dim);
  float most = -std::numeric_limits<float>::infinity();
  double sum = 0;
  for (std::int64_t begin = first / kE4m3KeyTile * kE4m3KeyTile; begin <= last; begin += kE4m3KeyTile) {
    const std::int64_t from = std::max(first, begin), to = std::min<std::int64_t>(last + 1, begin + kE4m3KeyTile);
    const auto value_scale = [&](std::int64_t t) {
      const float scale = values.scales[static_cast<std::size_t>(t)];
      return scale < kE4m3LeastValueScale ? kE4m3LeastValueScale : scale;
    };
    float largest = most;
    for (std::int64_t t = from; t < to; ++t) {
      const float* key = keys.codes.data() + static_cast<std::size_t>(t) * dim;
      double product = 0;
      for (std::size_t i = 0; i < dim; ++i) product += static_cast<double>(codes[i]) * key[i];
      const float u =
          static_cast<float>(product) * keys.scales[static_cast<std::size_t>(t)] * factor + std::log2(value_scale(t));
      weights[static_cast<std::size_t>(t - begin)] = u;
      largest = std::max(largest, u);
    }
    const double decay = std::exp2(static_cast<double>(most) - largest);
    most = largest;
    sum *= decay;
    for (double& v : mixed) v *= decay;
    for (std::int64_t t = from; t < to; ++t) {
      const float w = std::exp2(weights[static_cast<std::size_t>(t - begin)] - most + kE4m3WeightBits),
                  rounded = to_e4m3(w);
      const float* value = values.codes.data() + static_cast<std::size_t>(t) * dim;
      sum += static_cast<double>(w) / value_scale(t);
      for (std::size_t i = 0; i < dim; ++i) mixed[i] += static_cast<double>(rounded) * value[i];
    }
  }
  if (how.sink) sum += std::exp2(static_cast<double>(*how.sink) * std::numbers::log2e - most + kE4m3WeightBits);
  for (std::size_t i = 0; i < dim; ++i) out[i] = static_cast<float>(mixed[i] / sum);
  return out;
}

}  // namespace lowp::kernels::ref
