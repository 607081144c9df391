#include "lowp/kernels/ref/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <random>

#include "lowp/formats/codec.h"
#include "lowp/kernels/ref/attention_testing.h"

namespace lowp::kernels::ref {
namespace {

constexpr std::size_t kDim = 64;

// Normal numbers as codes of e4m3 and a scale a token, half of the tokens three times as large.
struct Coded {
  std::vector<float> codes, scales;
  operator CodedTokens() const { return {codes, scales}; }
};
Coded random_tokens(std::size_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Coded made;
  for (std::size_t t = 0; t < count; ++t) {
    std::vector<float> x(kDim);
    float amax = 0;
    for (float& v : x) {
      v = normal(rng) * (t % 2 ? 3.0f : 1.0f);
      amax = std::max(amax, std::fabs(v));
    }
    made.scales.push_back(amax / 448);
    for (const float v : x)
      made.codes.push_back(
          formats::decode(formats::Elem::e4m3, formats::encode(formats::Elem::e4m3, v / made.scales.back())));
  }
  return made;
}
std::vector<float> random_query(std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> query(kDim);
  for (float& v : query) v = normal(rng);
  return query;
}

TEST(RefE4m3Attention, OneTokenIsItsValue) {
  std::mt19937 rng(1);
  const Coded keys = random_tokens(5, rng), values = random_tokens(5, rng);
  const std::vector<float> out = attend_e4m3(random_query(rng), keys, values, 3, 3, {.scale = 0.125f});
  for (std::size_t i = 0; i < kDim; ++i)
    EXPECT_NEAR(out[i], values.codes[3 * kDim + i] * values.scales[3], 1e-5 * std::fabs(out[i]));
}

TEST(RefE4m3Attention, NearTheExactResult) {
  std::mt19937 rng(2);
  const Coded keys = random_tokens(500, rng), values = random_tokens(500, rng);
  const float sink = 1.5f;
  for (const bool with_sink : {false, true})
    for (const auto& [first, last] : {std::pair<std::int64_t, std::int64_t>{0, 499}, {100, 300}, {127, 128}}) {
      const E4m3Attention how{.scale = 0.0625f, .sink = with_sink ? &sink : nullptr};
      double error = 0, power = 0;
      for (int round = 0; round < 20; ++round) {
        const std::vector<float> query = random_query(rng);
        const std::vector<double> exact = attend_exactly(query, keys, values, first, last, how);
        const std::vector<float> out = attend_e4m3(query, keys, values, first, last, how);
        for (std::size_t i = 0; i < kDim; ++i) {
          error += std::pow(out[i] - exact[i], 2);
          power += exact[i] * exact[i];
        }
      }
      EXPECT_GE(10 * std::log10(power / error), 25) << first << " to " << last << (with_sink ? ", a sink" : "");
    }
}

// Whatever the scales of values are, weights keep their precision; values of nothing count in the sum.
TEST(RefE4m3Attention, ScalesOfValuesFarApart) {
  std::mt19937 rng(3);
  const Coded keys = random_tokens(4, rng);
  Coded values = random_tokens(4, rng);
  values.scales = {1e-30f, 1.0f, 1e-3f, 0.0f};
  const std::vector<float> query(kDim, 0.0f);
  const std::vector<float> out = attend_e4m3(query, keys, values, 0, 3, {});
  const std::vector<double> exact = attend_exactly(query, keys, values, 0, 3, {});
  for (std::size_t i = 0; i < kDim; ++i) EXPECT_NEAR(out[i], exact[i], 0.07 * std::fabs(exact[i]) + 0.01) << i;
}

// Of torchao-spec 6 by itself: everything as the formulas have it, in double but for what they round, and no rounding
// of the softmax's weights. `exact`: nor of anything else.
std::vector<double> by_the_formulas(const HeadsAttention& how, const std::vector<float> (&x)[3], bool exact) {
  const std::int64_t dim = how.dim, half = dim / 2, group = how.heads / how.kv_heads;
  std::vector<double> operands[3];
  for (int side = 0; side < 3; ++side) {  // q, k, v
    const std::int64_t heads = side == 0 ? how.heads : how.kv_heads;
    std::vector<double>& all = operands[side];
    all.assign(x[side].begin(), x[side].end());
    std::vector<double> amax(static_cast<std::size_t>(how.batch * how.kv_heads));
    const auto scale_of = [&](std::int64_t vector) -> double& {
      const std::int64_t b = vector / heads / how.seq, h = vector % heads;
      return amax[static_cast<std::size_t>(b * how.kv_heads + (side == 0 ? h / group : h))];
    };
    for (std::int64_t vector = 0; vector < how.batch * how.seq * heads; ++vector) {
      double* v = all.data() + vector * dim;
      for (std::int64_t i = 0; i < half && side < 2; ++i) {
        const std::int64_t angle = vector / heads % how.seq * half + i;
        double &a = v[how.interleaved ? 2 * i : i], &b = v[how.interleaved ? 2 * i + 1 : i + half];
        const double c = how.cos[angle], s = how.sin[angle], first = a, second = b;
        a = first * c - second * s;
        b = second * c + first * s;
      }
      if (side < 2 ? how.hadamard_keys : how.hadamard_values) {
        std::vector<double> rotated(static_cast<std::size_t>(dim));
        for (std::int64_t i = 0; i < dim; ++i)
          for (std::int64_t j = 0; j < dim; ++j)
            rotated[static_cast<std::size_t>(i)] +=
                (std::popcount(static_cast<std::uint64_t>(i & j)) % 2 ? -v[j] : v[j]) /
                std::sqrt(static_cast<double>(dim));
        std::copy(rotated.begin(), rotated.end(), v);
      }
      for (std::int64_t i = 0; i < dim; ++i) scale_of(vector) = std::max(scale_of(vector), std::fabs(v[i]));
    }
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(all.size()) && !exact; ++i) {
      double& v = all[static_cast<std::size_t>(i)];
      const double scale = scale_of(i / dim) / 448;
      const float intermediate = formats::round_to(formats::Elem::bf16, static_cast<float>(v));
      v = formats::decode(formats::Elem::e4m3,
                          formats::encode(formats::Elem::e4m3, static_cast<float>(intermediate / scale))) *
          scale;
    }
  }
  std::vector<double> out;
  for (std::int64_t b = 0; b < how.batch; ++b)
    for (std::int64_t t = 0; t < how.seq; ++t)
      for (std::int64_t h = 0; h < how.heads; ++h) {
        std::vector<double> row(static_cast<std::size_t>(dim)), back(row.size());
        double sum = 0;
        const double* q = operands[0].data() + ((b * how.seq + t) * how.heads + h) * dim;
        for (std::int64_t j = 0; j <= (how.causal ? t : how.seq - 1); ++j) {
          const std::int64_t at = ((b * how.seq + j) * how.kv_heads + h / group) * dim;
          double score = 0;
          for (std::int64_t i = 0; i < dim; ++i) score += q[i] * operands[1][static_cast<std::size_t>(at + i)];
          const double weight = std::exp(score * how.scale);
          sum += weight;
          for (std::int64_t i = 0; i < dim; ++i)
            row[static_cast<std::size_t>(i)] += weight * operands[2][static_cast<std::size_t>(at + i)];
        }
        for (std::size_t i = 0; i < row.size(); ++i)
          for (std::size_t j = 0; j < row.size(); ++j)
            back[i] += how.hadamard_values
                           ? (std::popcount(i & j) % 2 ? -row[j] : row[j]) / std::sqrt(static_cast<double>(dim))
                           : (i == j ? row[j] : 0);
        for (const double v : back) out.push_back(v / sum);
      }
  return out;
}

// Normal operands [batch, seq, heads, dim] in bf16; one dimension of the last token `outlier` times as large.
struct Operands {
  std::vector<float> x[3], cos, sin;
  Tensor tensors[3];
  Operands(const HeadsAttention& how, float outlier) : cos(static_cast<std::size_t>(how.seq * how.dim / 2)), sin(cos) {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    for (int side = 0; side < 3; ++side) {
      const std::int64_t heads = side == 0 ? how.heads : how.kv_heads;
      tensors[side] = Tensor(DType::bf16, {how.batch, how.seq, heads, how.dim});
      for (std::int64_t i = 0; i < element_count(tensors[side].shape()); ++i)
        x[side].push_back(formats::round_to(
            formats::Elem::bf16,
            normal(rng) * (i / heads / how.dim % how.seq == how.seq - 1 && i % how.dim == 7 ? outlier : 1.0f)));
      store_rounded(tensors[side], 0, x[side]);
    }
    for (std::size_t i = 0; i < cos.size(); ++i) {
      const double half = static_cast<double>(how.dim) / 2,
                   angle = std::floor(static_cast<double>(i) / half) *
                           std::pow(10000.0, -std::fmod(static_cast<double>(i), half) / half);
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
  }
};

// Over the first values of both.
double decibels(const Tensor& found, const std::vector<double>& expected, std::size_t count) {
  std::vector<float> values(count);
  load_f32(found.view(), 0, static_cast<std::int64_t>(values.size()), values.data());
  double error = 0, power = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    error += std::pow(values[i] - expected[i], 2);
    power += expected[i] * expected[i];
  }
  return 10 * std::log10(power / error);
}

TEST(RefHeadsAttention, IsThatOfTheFormulas) {
  for (const bool causal : {true, false})
    for (const bool interleaved : {true, false})
      for (const int hadamard : {0, 1, 2}) {
        HeadsAttention how{.batch = 2,
                           .seq = 90,
                           .heads = 4,
                           .kv_heads = 2,
                           .dim = 64,
                           .interleaved = interleaved,
                           .hadamard_keys = hadamard == 2,
                           .hadamard_values = hadamard > 0,
                           .causal = causal,
                           .scale = 0.125f};
        const Operands in(how, 1);
        how.cos = in.cos.data();
        how.sin = in.sin.data();
        const Tensor found = attend_heads(in.tensors[0].view(), in.tensors[1].view(), in.tensors[2].view(), how);
        // Rounding weights to e4m3: 2^-4 of each at most, about a third of that on average.
        EXPECT_GE(decibels(found, by_the_formulas(how, in.x, false), in.x[0].size()), 29)
            << causal << interleaved << hadamard;
        EXPECT_GE(decibels(found, by_the_formulas(how, in.x, true), in.x[0].size()), 25)
            << causal << interleaved << hadamard;
      }
}

// An outlier takes the scale of its head, also from rows that do not see it.
TEST(RefHeadsAttention, HadamardHelpsWithOutliers) {
  double seen[3];
  for (const int hadamard : {0, 1, 2}) {
    HeadsAttention how{.seq = 130,
                       .heads = 2,
                       .kv_heads = 1,
                       .dim = 128,
                       .hadamard_keys = hadamard == 2,
                       .hadamard_values = hadamard > 0,
                       .scale = 0.0883883f};
    const Operands in(how, 1e5f);
    how.cos = in.cos.data();
    how.sin = in.sin.data();
    const Tensor found = attend_heads(in.tensors[0].view(), in.tensors[1].view(), in.tensors[2].view(), how);
    seen[hadamard] = decibels(found, by_the_formulas(how, in.x, true), 129 * 2 * 128);
  }
  std::printf("outliers: %.1f dB, values rotated %.1f, all rotated %.1f\n", seen[0], seen[1], seen[2]);
  EXPECT_GT(seen[1], seen[0] + 1);
  EXPECT_GT(seen[2], seen[1] + 1);
  EXPECT_GE(seen[2], 25);
}

}  // namespace
}  // namespace lowp::kernels::ref
