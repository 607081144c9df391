// Every attention kernel that this machine runs against plain attention in double precision, and against itself in
// other batches and pieces.
#include "lowp/ops/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>

#include "lowp/formats/codec.h"

namespace lowp::ops {
namespace {

using formats::Elem;
using kernels::cpu::Isa;
using kernels::cpu::kPageTokens;

struct Shape {
  std::int64_t heads, kv_heads, head_dim, tokens, window = 0;
  std::vector<float> sinks = {};

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  AttendOptions options(Elem compute) const {
    return {.heads = heads, .scale = scale(), .window = window, .sinks = sinks, .compute = compute};
  }
};

// Random queries, keys and values of one sequence, and pages that hold them.
struct Sequence {
  Sequence(const KvLayout& layout, const Shape& s, Elem compute, unsigned seed) : shape(s) {
    std::mt19937 random(seed);
    std::normal_distribution<float> distribution(0, 1.5f);
    const auto fill = [&](std::vector<float>& values, std::int64_t count) {
      values.resize(static_cast<std::size_t>(count));
      for (float& v : values) v = formats::round_to(compute, distribution(random));
    };
    fill(queries, s.tokens * s.heads * s.head_dim);
    fill(keys, s.tokens * s.kv_heads * s.head_dim);
    fill(values, s.tokens * s.kv_heads * s.head_dim);
    memory.resize(static_cast<std::size_t>((s.tokens + kPageTokens - 1) / kPageTokens) * layout.page_bytes() + 64);
    auto* first = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
    for (std::int64_t p = 0; p * kPageTokens < s.tokens; ++p)
      pages.push_back(first + static_cast<std::size_t>(p) * layout.page_bytes());
    for (std::int64_t t = 0; t < s.tokens; ++t)
      for (std::int64_t h = 0; h < s.kv_heads; ++h) {
        const std::int64_t at = (t * s.kv_heads + h) * s.head_dim;
        layout.store(const_cast<std::byte*>(pages[static_cast<std::size_t>(t / kPageTokens)]), h, t % kPageTokens,
                     &keys[at], &values[at]);
      }
  }
  Shape shape;
  std::vector<float> queries, keys, values;
  std::vector<std::byte> memory;
  std::vector<const std::byte*> pages;
};

// Output [tokens, heads, head_dim] of queries from position `begin` on.
std::vector<float> attend_from(const KvLayout& layout, const Sequence& s, std::int64_t begin, std::int64_t end,
                               Elem compute) {
  const std::int64_t width = s.shape.heads * s.shape.head_dim;
  std::vector<float> out(static_cast<std::size_t>((end - begin) * width), -1.0f);
  const AttendSequence sequence{s.queries.data() + begin * width, out.data(), end - begin, begin, s.pages};
  AttendScratch scratch;
  attend(layout, s.shape.options(compute), {&sequence, 1}, scratch);
  return out;
}

// What int8 makes of a head's values.
std::vector<double> stored(const float* x, std::int64_t count, Elem type) {
  std::vector<double> values(x, x + count);
  if (type != Elem::int8) return values;
  float amax = 0;
  for (std::int64_t i = 0; i < count; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float scale = amax / 127.0f;
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] =
        static_cast<double>(formats::round_half_even(x[i] / scale)) * static_cast<double>(scale);
  return values;
}

// Rows of output head h, for the positions `at`.
std::vector<std::vector<double>> reference(const Sequence& s, std::int64_t h, std::span<const std::int64_t> at,
                                           Elem type) {
  const Shape& shape = s.shape;
  const std::int64_t d = shape.head_dim, kv_head = h / (shape.heads / shape.kv_heads);
  std::vector<std::vector<double>> keys, values, rows;
  for (std::int64_t t = 0; t < shape.tokens; ++t) {
    keys.push_back(stored(s.keys.data() + (t * shape.kv_heads + kv_head) * d, d, type));
    values.push_back(stored(s.values.data() + (t * shape.kv_heads + kv_head) * d, d, type));
  }
  for (const std::int64_t t : at) {
    const float* q = s.queries.data() + (t * shape.heads + h) * d;
    std::vector<double> scores, out(static_cast<std::size_t>(d));
    const std::int64_t first = shape.window > 0 ? std::max<std::int64_t>(0, t + 1 - shape.window) : 0;
    for (std::int64_t j = first; j <= t; ++j)
      scores.push_back(std::inner_product(q, q + d, keys[static_cast<std::size_t>(j)].begin(), 0.0) *
                       static_cast<double>(shape.scale()));
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum =
        shape.sinks.empty() ? 0 : std::exp(static_cast<double>(shape.sinks[static_cast<std::size_t>(h)]) - largest);
    for (std::size_t j = 0; j < scores.size(); ++j) {
      const double p = std::exp(scores[j] - largest);
      sum += p;
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += p * values[static_cast<std::size_t>(first) + j][i];
    }
    for (double& v : out) v /= sum;
    rows.push_back(out);
  }
  return rows;
}

struct Case {
  Isa isa;
  Elem compute, type;
};

std::string label(const testing::TestParamInfo<Case>& info) {
  std::string name(kernels::cpu::name(info.param.isa));
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "_" + std::string(formats::info(info.param.compute).name) + "_" +
         std::string(formats::info(info.param.type).name);
}

class Attention : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!kernels::cpu::runs(GetParam().isa))
      GTEST_SKIP() << "this machine does not run " << kernels::cpu::name(GetParam().isa);
  }
  KvLayout layout(const Shape& s) const {
    return {GetParam().compute, GetParam().type, s.kv_heads, s.head_dim, GetParam().isa};
  }
};

// Shapes that are no multiple of anything; groups of 1 to 20 query heads; lengths around pages and segments; windows;
// sinks, also such that they leave the values nothing.
const Shape kShapes[] = {{8, 2, 64, 150},
                         {3, 3, 80, 65},
                         {7, 1, 128, 64},
                         {20, 1, 32, 40},
                         {4, 1, 64, 1100},
                         {1, 1, 16, 1},
                         {6, 2, 34, 70},
                         {4, 2, 64, 130, 17},
                         {4, 1, 32, 1300, 600},
                         {4, 2, 64, 1100, 0, {3, -2, 9, 400}},
                         {3, 1, 32, 70, 9, {0.5f, 4, -90}}};

TEST_P(Attention, AgreesWithDoublePrecision) {
  const auto [isa, compute, type] = GetParam();
  for (const Shape& s : kShapes) {
    const KvLayout kv = layout(s);
    const Sequence sequence(kv, s, compute, 11);
    const std::vector<float> found = attend_from(kv, sequence, 0, s.tokens, compute);
    std::vector<std::int64_t> at;
    for (std::int64_t t = 0; t < s.tokens - 1; t += 1 + t / 3) at.push_back(t);
    at.push_back(s.tokens - 1);
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const auto expected = reference(sequence, h, at, type);
      for (std::size_t r = 0; r < at.size(); ++r)
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          const double value = expected[r][static_cast<std::size_t>(i)];
          // bf16: weights are rounded to 8 bits before they meet the values, and so is the result.
          const double bound = compute == Elem::bf16 ? 0.02 + std::fabs(value) * 0x1p-8 : 2e-5;
          ASSERT_NEAR(found[static_cast<std::size_t>((at[r] * s.heads + h) * s.head_dim + i)], value, bound)
              << "heads " << s.heads << "/" << s.kv_heads << " x " << s.head_dim << ", token " << at[r] << ", head "
              << h << ", " << i;
        }
    }
  }
}

TEST_P(Attention, DoesNotDependOnBatchOrPieces) {
  const auto [isa, compute, type] = GetParam();
  for (const Shape& s : kShapes) {
    const KvLayout kv = layout(s);
    const Sequence sequence(kv, s, compute, 5), other(kv, s, compute, 6);
    const std::vector<float> whole = attend_from(kv, sequence, 0, s.tokens, compute);
    const std::int64_t width = s.heads * s.head_dim, beside = std::min<std::int64_t>(s.tokens, 33);
    std::vector<float> pieces;
    for (std::int64_t begin = 0, step = 1; begin < s.tokens; begin += step, step = step * 5 % 127 + 1) {
      step = std::min(step, s.tokens - begin);
      std::vector<float> part(static_cast<std::size_t>(step * width)), rest(static_cast<std::size_t>(beside * width));
      const AttendSequence batch[] = {
          {other.queries.data(), rest.data(), beside, 0, other.pages},
          {sequence.queries.data() + begin * width, part.data(), step, begin, sequence.pages}};
      AttendScratch scratch;
      attend(kv, s.options(compute), batch, scratch);
      pieces.insert(pieces.end(), part.begin(), part.end());
    }
    EXPECT_EQ(pieces, whole) << s.heads << "/" << s.kv_heads << " x " << s.head_dim;
  }
}

TEST_P(Attention, NanReachesOnlyWhoSeesIt) {
  const auto [isa, compute, type] = GetParam();
  const Shape s{2, 1, 64, 20};
  const KvLayout kv = layout(s);
  Sequence sequence(kv, s, compute, 3);
  sequence.keys[10 * 64 + 3] = NAN;
  kv.store(const_cast<std::byte*>(sequence.pages[0]), 0, 10, &sequence.keys[10 * 64], &sequence.values[10 * 64]);
  const std::vector<float> out = attend_from(kv, sequence, 0, s.tokens, compute);
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(std::isnan(out[i]), i >= 10 * 128) << i;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Isa isa : kernels::cpu::isa_levels()) {
    all.push_back({isa, Elem::f32, Elem::f32});
    all.push_back({isa, Elem::f32, Elem::int8});
    all.push_back({isa, Elem::bf16, Elem::bf16});
    all.push_back({isa, Elem::bf16, Elem::int8});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Isas, Attention, testing::ValuesIn(cases()), label);

}  // namespace
}  // namespace lowp::ops
