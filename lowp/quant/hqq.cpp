#include "lowp/quant/hqq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lowp/base/threads.h"

namespace lowp::quant {
namespace {

using formats::round_half_even;

constexpr int kHqqRounds = 20;
constexpr float kNorm = 0.7f, kBeta = 10.0f, kBetaGrowth = 1.01f;

// Shrinkage operator of the l_p norm.
float shrink(float d, float beta) {
  const float size = std::fabs(d);
  if (size == 0) return 0;
  return std::copysign(std::max(size - std::pow(size, kNorm - 1) / beta, 0.0f), d);
}

// The values of x in f32, `kTogether` groups side by side: value i of group g is at
// ((g / kTogether) * width + i) * kTogether + g % kTogether, so that loops over neighbouring groups become vectors and
// each group still sums its values in order. The last groups repeat the last one.
constexpr std::int64_t kTogether = 16;
struct Groups {
  std::vector<float> values;
  std::int64_t width, count;
  const float* bundle(std::int64_t b) const { return values.data() + b * width * kTogether; }
  std::int64_t bundles() const { return ceil_div(count, kTogether); }
};
Groups load_groups(const TensorView& x, const formats::BlockFormat& format) {
  Groups groups;
  groups.width = format.group_cols == 0 ? x.shape[1] : format.group_cols;
  groups.count = element_count(x.shape) / groups.width;
  groups.values.resize(static_cast<std::size_t>(groups.bundles() * kTogether * groups.width));
  parallel_for(groups.bundles(), 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> group(static_cast<std::size_t>(groups.width));
    for (std::int64_t g = begin * kTogether; g < end * kTogether; ++g) {
      load_f32(x, std::min(g, groups.count - 1) * groups.width, groups.width, group.data());
      float* to = groups.values.data() + g / kTogether * groups.width * kTogether + g % kTogether;
      for (std::int64_t i = 0; i < groups.width; ++i) to[i * kTogether] = group[static_cast<std::size_t>(i)];
    }
  });
  return groups;
}

using Lanes = std::array<float, kTogether>;

// body(first group, its bundle's values, how many groups count)
template <typename Body>
void for_bundles(const Groups& groups, const Body& body) {
  parallel_for(groups.bundles(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      body(b * kTogether, groups.bundle(b), std::min(kTogether, groups.count - b * kTogether));
  });
}

float clamp(float x, float low, float high) { return std::min(std::max(x, low), high); }

// round(x), half to even, clamped to integers low to high, of at most 22 bits.
float code_of(float x, float low, float high) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  return (clamp(x, low, high) + kRound) - kRound;
}

Lanes lanes_of(const std::vector<float>& values, std::int64_t first, std::int64_t count) {
  Lanes lanes{};
  std::copy_n(values.begin() + first, count, lanes.begin());
  std::fill(lanes.begin() + count, lanes.end(), lanes[static_cast<std::size_t>(count - 1)]);
  return lanes;
}

// One round of the search for zero points: sums of what the zero point would be for each value, and of the errors.
struct Sums {
  std::array<double, kTogether> moved{}, size{};
};
Sums sums(const float* w, std::int64_t width, const Lanes& scale, const Lanes& zero, float qmax, float beta) {
  // The shrinkage operator is 0 where size <= size^(norm - 1) / beta, which spares its power for nearly all values. A
  // little less, for what rounding does.
  const float least = 0.99f * std::pow(1 / beta, 1 / (2 - kNorm));
  Sums s;
  for (std::int64_t i = 0; i < width; ++i, w += kTogether) {
    Lanes q, difference;
    for (std::size_t l = 0; l < kTogether; ++l) q[l] = code_of(w[l] * scale[l] + zero[l], 0, qmax);
    for (std::size_t l = 0; l < kTogether; ++l) difference[l] = w[l] - (q[l] - zero[l]) / scale[l];
    float largest = 0;
    for (std::size_t l = 0; l < kTogether; ++l) largest = std::max(largest, std::fabs(difference[l]));
    Lanes shrunk{};
    if (largest >= least)
      for (std::size_t l = 0; l < kTogether; ++l) shrunk[l] = shrink(difference[l], beta);
    for (std::size_t l = 0; l < kTogether; ++l) s.moved[l] += static_cast<double>(q[l] - (w[l] - shrunk[l]) * scale[l]);
    for (std::size_t l = 0; l < kTogether; ++l) s.size[l] += static_cast<double>(std::fabs(difference[l]));
  }
  return s;
}

}  // namespace

QuantizedMatrix hqq_zero_point(const TensorView& x, const formats::BlockFormat& format,
                               const ops::CastOptions& options) {
  QuantizedMatrix out = ops::allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  ops::stats(x, options);  // refuses NaN and infinities
  const Groups groups = load_groups(x, format);
  const float qmax = formats::max_value(format.element);
  std::vector<float> scale(static_cast<std::size_t>(groups.count)), zero(scale.size());
  for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
    for (std::int64_t l = 0; l < count; ++l) {
      float low = w[l], high = w[l];
      for (std::int64_t i = 1; i < groups.width; ++i) {
        low = std::min(low, w[i * kTogether + l]);
        high = std::max(high, w[i * kTogether + l]);
      }
      scale[first + l] = std::min(qmax / (high - low), 2e4f);  // w -> code; a constant group would be infinite
      zero[first + l] = round_half_even(-low * scale[first + l]);
    }
  });

  float beta = kBeta;
  double best = 1e4;
  std::vector<double> error(scale.size());
  for (int round = 0; round < kHqqRounds; ++round) {
    for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
      const Sums s = sums(w, groups.width, lanes_of(scale, first, count), lanes_of(zero, first, count), qmax, beta);
      for (std::int64_t l = 0; l < count; ++l) {
        zero[first + l] = static_cast<float>(s.moved[static_cast<std::size_t>(l)] / static_cast<double>(groups.width));
        error[first + l] = s.size[static_cast<std::size_t>(l)];
      }
    });
    beta *= kBetaGrowth;
    double mean = 0;
    for (const double e : error) mean += e;
    mean /= static_cast<double>(groups.count * groups.width);
    if (mean >= best) break;  // the zero point moves in the round that stops, too
    best = mean;
  }

  const float middle = (qmax + 1) / 2;
  for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
    for (std::int64_t l = 0; l < count; ++l) {
      const std::int64_t g = first + l;
      for (std::int64_t i = 0; i < groups.width; ++i)
        out.codes.as<std::uint8_t>()[g * groups.width + i] =
            static_cast<std::uint8_t>(code_of(w[i * kTogether + l] * scale[g] + zero[g], 0, qmax));
      const float step = 1 / scale[g];
      out.scale.as<float>()[g] = formats::round_to(out.input, step);
      out.zero_point.as<float>()[g] = formats::round_to(out.input, (middle - zero[g]) * step);
    }
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
  for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
    for (std::int64_t l = 0; l < count; ++l) {
      float amax = 0;
      for (std::int64_t i = 0; i < groups.width; ++i) amax = std::max(amax, std::fabs(w[i * kTogether + l]));
      scale[first + l] = std::max(amax / -qmin, kEps);
    }
  });
  for (int round = 0; round < kHqqRounds; ++round) {
    for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
      const Lanes s = lanes_of(scale, first, count);
      Lanes wq{}, qq{};
      for (std::int64_t i = 0; i < groups.width; ++i, w += kTogether)
        for (std::size_t l = 0; l < kTogether; ++l) {
          const float q = code_of(w[l] / s[l], qmin, qmax);
          wq[l] += w[l] * q;
          qq[l] += q * q;
        }
      for (std::size_t l = 0; l < static_cast<std::size_t>(count); ++l) {
        const float next = std::max(qq[l] > 0 ? wq[l] / qq[l] : s[l], kEps);
        change[static_cast<std::size_t>(first) + l] = std::fabs(next - s[l]) / std::max(s[l], kEps);
        scale[static_cast<std::size_t>(first) + l] = next;
      }
    });
    if (*std::max_element(change.begin(), change.end()) < 1e-5f) break;
  }
  for_bundles(groups, [&](std::int64_t first, const float* w, std::int64_t count) {
    for (std::int64_t l = 0; l < count; ++l) {
      const std::int64_t g = first + l;
      for (std::int64_t i = 0; i < groups.width; ++i)
        out.codes.as<std::int8_t>()[g * groups.width + i] =
            static_cast<std::int8_t>(code_of(w[i * kTogether + l] / scale[g], qmin, qmax));
      out.scale.as<float>()[g] = formats::round_to(out.input, scale[g]);
    }
  });
  return out;
}

}  // namespace lowp::quant
