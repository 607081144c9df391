#include "lowp/quant/hqq.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowp/base/threads.h"

namespace lowp::quant {
namespace {

using formats::round_half_even;

constexpr int kRounds = 20;
constexpr float kNorm = 0.7f, kBeta = 10.0f, kBetaGrowth = 1.01f;

// Shrinkage operator of the l_p norm.
float shrink(float d, float beta) {
  const float size = std::fabs(d);
  if (size == 0) return 0;
  return std::copysign(std::max(size - std::pow(size, kNorm - 1) / beta, 0.0f), d);
}

// The values of x in f32 with one group after the other.
struct Groups {
  std::vector<float> values;
  std::int64_t width, count;
};
Groups load_groups(const TensorView& x, const formats::BlockFormat& format) {
  const std::int64_t total = element_count(x.shape);
  Groups groups{std::vector<float>(static_cast<std::size_t>(total)), 0, 0};
  groups.width = format.group_cols == 0 ? x.shape[1] : format.group_cols;
  groups.count = total / groups.width;
  load_f32(x, 0, total, groups.values.data());
  return groups;
}

template <typename Body>  // body(group index, pointer to its values)
void for_groups(const Groups& groups, const Body& body) {
  parallel_for(groups.count, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) body(g, groups.values.data() + g * groups.width);
  });
}

float clamp(float x, float low, float high) { return std::min(std::max(x, low), high); }

}  // namespace

QuantizedMatrix hqq_zero_point(const TensorView& x, const formats::BlockFormat& format,
                               const ops::CastOptions& options) {
  QuantizedMatrix out = ops::allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  ops::stats(x, options);  // refuses NaN and infinities
  const Groups groups = load_groups(x, format);
  const float qmax = formats::max_value(format.element);
  std::vector<float> scale(static_cast<std::size_t>(groups.count)), zero(scale.size());
  for_groups(groups, [&](std::int64_t g, const float* w) {
    const auto [low, high] = std::minmax_element(w, w + groups.width);
    scale[g] = std::min(qmax / (*high - *low), 2e4f);  // w -> code; a constant group would be infinite
    zero[g] = round_half_even(-*low * scale[g]);
  });

  float beta = kBeta;
  double best = 1e4;
  std::vector<double> error(scale.size());
  for (int round = 0; round < kRounds; ++round) {
    for_groups(groups, [&](std::int64_t g, const float* w) {
      double moved = 0, size = 0;
      for (std::int64_t i = 0; i < groups.width; ++i) {
        const float q = clamp(round_half_even(w[i] * scale[g] + zero[g]), 0, qmax);
        const float difference = w[i] - (q - zero[g]) / scale[g];
        moved += static_cast<double>(q - (w[i] - shrink(difference, beta)) * scale[g]);
        size += static_cast<double>(std::fabs(difference));
      }
      zero[g] = static_cast<float>(moved / static_cast<double>(groups.width));
      error[g] = size;
    });
    beta *= kBetaGrowth;
    double mean = 0;
    for (const double e : error) mean += e;
    mean /= static_cast<double>(groups.values.size());
    if (mean >= best) break;  // the zero point moves in the round that stops, too
    best = mean;
  }

  const float middle = (qmax + 1) / 2;
  for_groups(groups, [&](std::int64_t g, const float* w) {
    for (std::int64_t i = 0; i < groups.width; ++i)
      out.codes.as<std::uint8_t>()[g * groups.width + i] =
          static_cast<std::uint8_t>(clamp(round_half_even(w[i] * scale[g] + zero[g]), 0, qmax));
    const float step = 1 / scale[g];
    out.scale.as<float>()[g] = formats::round_to(out.input, step);
    out.zero_point.as<float>()[g] = formats::round_to(out.input, (middle - zero[g]) * step);
  });
  return out;
}

QuantizedMatrix hqq_scale(const TensorView& x, const formats::BlockFormat& format, const ops::CastOptions& options) {
  QuantizedMatrix out = ops::allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  ops::stats(x, options);
  constexpr float kEps = 0x1p-23f;
  const Groups groups = load_groups(x, format);
  const float qmin = formats::min_value(format.element), qmax = formats::max_value(format.element);
  std::vector<float> scale(static_cast<std::size_t>(groups.count)), change(scale.size());
  for_groups(groups, [&](std::int64_t g, const float* w) {
    float amax = 0;
    for (std::int64_t i = 0; i < groups.width; ++i) amax = std::max(amax, std::fabs(w[i]));
    scale[g] = std::max(amax / -qmin, kEps);
  });
  for (int round = 0; round < kRounds; ++round) {
    for_groups(groups, [&](std::int64_t g, const float* w) {
      float wq = 0, qq = 0;
      for (std::int64_t i = 0; i < groups.width; ++i) {
        const float q = clamp(round_half_even(w[i] / scale[g]), qmin, qmax);
        wq += w[i] * q;
        qq += q * q;
      }
      const float next = std::max(qq > 0 ? wq / qq : scale[g], kEps);
      change[g] = std::fabs(next - scale[g]) / std::max(scale[g], kEps);
      scale[g] = next;
    });
    if (*std::max_element(change.begin(), change.end()) < 1e-5f) break;
  }
  for_groups(groups, [&](std::int64_t g, const float* w) {
    for (std::int64_t i = 0; i < groups.width; ++i)
      out.codes.as<std::int8_t>()[g * groups.width + i] =
          static_cast<std::int8_t>(clamp(round_half_even(w[i] / scale[g]), qmin, qmax));
    out.scale.as<float>()[g] = formats::round_to(out.input, scale[g]);
  });
  return out;
}

}  // namespace lowp::quant
