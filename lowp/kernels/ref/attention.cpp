#include "lowp/kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "lowp/formats/codec.h"
#include "lowp/kernels/attention_e4m3.h"
#include "lowp/kernels/head_hadamard.h"
#include "lowp/kernels/ref/front.h"

namespace lowp::kernels::ref {
namespace {

// Codes [batch, heads, seq, dim], decoded, and the scales that they are over.
struct CodedHeads {
  std::vector<float> codes, scales;
};
CodedHeads cast_heads(const TensorView& x, const HeadsCast& heads) {
  const HeadsResult result = rope_cast(x, heads);
  CodedHeads coded;
  for (std::int64_t i = 0; i < element_count(result.codes.shape()); ++i)
    coded.codes.push_back(formats::decode(formats::Elem::e4m3, result.codes.as<std::uint8_t>()[i]));
  coded.scales.assign(result.descale.as<float>(), result.descale.as<float>() + element_count(result.descale.shape()));
  return coded;
}

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

Tensor attend_heads(const TensorView& q, const TensorView& k, const TensorView& v, const HeadsAttention& how) {
  const std::int64_t seq = how.seq, group = how.heads / how.kv_heads;
  HeadsCast heads{.batch = how.batch,
                  .seq = seq,
                  .heads = how.heads,
                  .dim = how.dim,
                  .heads_per_scale = group,
                  .cos = how.cos,
                  .sin = how.sin,
                  .interleaved = how.interleaved,
                  .hadamard = how.hadamard_keys};
  const CodedHeads queries = cast_heads(q, heads);
  heads.heads = how.kv_heads;
  heads.heads_per_scale = 1;
  const CodedHeads keys = cast_heads(k, heads);
  heads.cos = heads.sin = nullptr;
  heads.hadamard = how.hadamard_values;
  const CodedHeads values = cast_heads(v, heads);

  const formats::Elem type = element_of(q.dtype);
  const auto dim = static_cast<std::size_t>(how.dim), tokens = static_cast<std::size_t>(seq);
  constexpr float kLargestCode = 448;  // codes are queries over a scale of one
  Tensor out(q.dtype, q.shape);
  for (std::int64_t b = 0; b < how.batch; ++b)
    for (std::int64_t h = 0; h < how.heads; ++h) {
      const auto kv = static_cast<std::size_t>(b * how.kv_heads + h / group);
      const std::vector<float> key_scales(tokens, keys.scales[kv]), value_scales(tokens, values.scales[kv]);
      const auto of_head = [&](const std::vector<float>& codes) {
        return std::span(codes).subspan(kv * tokens * dim, tokens * dim);
      };
      const E4m3Attention own{.scale = how.scale * queries.scales[kv], .amax = &kLargestCode};
      for (std::int64_t t = 0; t < seq; ++t) {
        const auto query =
            std::span(queries.codes).subspan(static_cast<std::size_t>((b * how.heads + h) * seq + t) * dim, dim);
        std::vector<float> row = attend_e4m3(query, {of_head(keys.codes), key_scales},
                                             {of_head(values.codes), value_scales}, 0, how.causal ? t : seq - 1, own);
        if (how.hadamard_values) hadamard_head(row.data(), how.dim);
        for (float& x : row) x = formats::round_to(type, x);
        store_rounded(out, ((b * seq + t) * how.heads + h) * how.dim, row);
      }
    }
  return out;
}

}  // namespace lowp::kernels::ref
