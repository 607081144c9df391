// Every attention kernel that this machine runs against plain attention in double precision or, with products of e4m3,
// against the scalar reference, and against itself in other batches and pieces.
#include "lowp/ops/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>

#include "lowp/formats/codec.h"
#include "lowp/kernels/head_hadamard.h"
#include "lowp/kernels/ref/attention_testing.h"

namespace lowp::ops {
namespace {

using formats::Elem;
using kernels::cpu::Isa;
using kernels::cpu::kPageTokens;

struct Shape {
  std::int64_t heads, kv_heads, head_dim, tokens, window = 0;
  std::vector<float> sinks = {};

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  AttendOptions options(Elem compute, bool e4m3) const {
    return {.heads = heads, .scale = scale(), .window = window, .sinks = sinks, .compute = compute, .e4m3 = e4m3};
  }
  std::int64_t first_seen(std::int64_t t) const { return window > 0 ? std::max<std::int64_t>(0, t + 1 - window) : 0; }
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
                               const AttendOptions& options) {
  const std::int64_t width = s.shape.heads * s.shape.head_dim;
  std::vector<float> out(static_cast<std::size_t>((end - begin) * width), -1.0f);
  const AttendSequence sequence{s.queries.data() + begin * width, out.data(), end - begin, begin, s.pages};
  AttendScratch scratch;
  attend(layout, options, {&sequence, 1}, scratch);
  return out;
}

// A head's numbers as they are stored: codes, decoded, over a scale.
struct Stored {
  std::vector<float> codes;
  float scale = 1;
};
Stored store(const float* x, std::int64_t count, Elem type) {
  Stored made{std::vector<float>(x, x + count)};
  if (type != Elem::int8 && type != Elem::e4m3) return made;
  float amax = 0;
  for (const float v : made.codes) amax = std::max(amax, std::fabs(v));
  made.scale = amax / (type == Elem::int8 ? 127.0f : 448.0f);
  for (float& v : made.codes)
    v = type == Elem::int8 ? formats::round_half_even(v / made.scale)
                           : formats::decode(type, formats::encode(type, v / made.scale));
  return made;
}
std::vector<double> stored(const float* x, std::int64_t count, Elem type) {
  const Stored made = store(x, count, type);
  std::vector<double> values(made.codes.begin(), made.codes.end());
  for (double& v : values) v *= static_cast<double>(made.scale);
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
    const std::int64_t first = shape.first_seen(t);
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
  bool e4m3 = false;  // products
};

std::string label(const testing::TestParamInfo<Case>& info) {
  std::string name(kernels::cpu::name(info.param.isa));
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "_" + std::string(formats::info(info.param.compute).name) + "_" +
         std::string(formats::info(info.param.type).name) + (info.param.e4m3 ? "_products" : "");
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
  AttendOptions options(const Shape& s) const { return s.options(GetParam().compute, GetParam().e4m3); }
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

// Positions of a sequence, the last among them.
std::vector<std::int64_t> some(std::int64_t tokens) {
  std::vector<std::int64_t> at;
  for (std::int64_t t = 0; t < tokens - 1; t += 1 + t / 3) at.push_back(t);
  at.push_back(tokens - 1);
  return at;
}

TEST_P(Attention, AgreesWithDoublePrecision) {
  const auto [isa, compute, type, e4m3] = GetParam();
  if (e4m3) return;
  for (const Shape& s : kShapes) {
    const KvLayout kv = layout(s);
    const Sequence sequence(kv, s, compute, 11);
    const std::vector<float> found = attend_from(kv, sequence, 0, s.tokens, options(s));
    const std::vector<std::int64_t> at = some(s.tokens);
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

// The reference counts weights from the largest score so far in tiles of 128 tokens, the kernels from the largest of a
// segment: of a row's first tile they are rounded alike, but for scores whose sums differ.
TEST_P(Attention, ProductsOfE4m3AgreeWithTheReference) {
  const auto [isa, compute, type, e4m3] = GetParam();
  if (!e4m3) return;
  double alike = 0, alike_power = 0, error = 0, power = 0;
  for (const Shape& s : kShapes) {
    const KvLayout kv = layout(s);
    const Sequence sequence(kv, s, compute, 12);
    const std::vector<float> found = attend_from(kv, sequence, 0, s.tokens, options(s));
    const auto dim = static_cast<std::size_t>(s.head_dim);
    for (std::int64_t h = 0; h < s.heads; ++h) {
      std::vector<float> codes[2], scales[2];
      for (std::int64_t t = 0; t < s.tokens; ++t)
        for (const int side : {0, 1}) {
          const std::int64_t at = (t * s.kv_heads + h / (s.heads / s.kv_heads)) * s.head_dim;
          const Stored made = store((side ? sequence.values : sequence.keys).data() + at, s.head_dim, type);
          codes[side].insert(codes[side].end(), made.codes.begin(), made.codes.end());
          scales[side].push_back(made.scale);
        }
      for (const std::int64_t t : some(s.tokens)) {
        const auto row = static_cast<std::size_t>(t * s.heads + h) * dim;
        const std::span query = std::span(sequence.queries).subspan(row, dim);
        const kernels::ref::E4m3Attention how{
            .scale = s.scale(), .sink = s.sinks.empty() ? nullptr : &s.sinks[static_cast<std::size_t>(h)]};
        const kernels::ref::CodedTokens keys{codes[0], scales[0]}, values{codes[1], scales[1]};
        const std::int64_t first = s.first_seen(t);
        const std::vector<float> expected = kernels::ref::attend_e4m3(query, keys, values, first, t, how);
        const std::vector<double> exact = kernels::ref::attend_exactly(query, keys, values, first, t, how);
        for (std::size_t i = 0; i < dim; ++i) {
          if (first / 128 == t / 128) {
            alike += std::pow(found[row + i] - expected[i], 2);
            alike_power += std::pow(expected[i], 2);
          }
          error += std::pow(found[row + i] - exact[i], 2);
          power += std::pow(exact[i], 2);
        }
      }
    }
  }
  EXPECT_GE(10 * std::log10(alike_power / alike), 45);
  EXPECT_GE(10 * std::log10(power / error), 27);
}

// Values that were rotated come out as those that were not.
TEST_P(Attention, RotatesBack) {
  const auto [isa, compute, type, e4m3] = GetParam();
  if (compute != Elem::f32 || type != Elem::f32) return;
  const Shape s{8, 2, 64, 150};
  const KvLayout kv = layout(s);
  Sequence sequence(kv, s, compute, 13);
  const std::vector<float> plain = attend_from(kv, sequence, 0, s.tokens, options(s));
  for (std::int64_t t = 0; t < s.tokens; ++t)
    for (std::int64_t h = 0; h < s.kv_heads; ++h) {
      const std::int64_t at = (t * s.kv_heads + h) * s.head_dim;
      kernels::hadamard_head(&sequence.values[at], s.head_dim);
      kv.store(const_cast<std::byte*>(sequence.pages[static_cast<std::size_t>(t / kPageTokens)]), h, t % kPageTokens,
               &sequence.keys[at], &sequence.values[at]);
    }
  AttendOptions rotated = options(s);
  rotated.hadamard = true;
  const std::vector<float> back = attend_from(kv, sequence, 0, s.tokens, rotated);
  for (std::size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(back[i], plain[i], 1e-5) << i;
}

TEST_P(Attention, DoesNotDependOnBatchOrPieces) {
  for (const Shape& s : kShapes) {
    const KvLayout kv = layout(s);
    const Sequence sequence(kv, s, GetParam().compute, 5), other(kv, s, GetParam().compute, 6);
    const std::vector<float> whole = attend_from(kv, sequence, 0, s.tokens, options(s));
    const std::int64_t width = s.heads * s.head_dim, beside = std::min<std::int64_t>(s.tokens, 33);
    std::vector<float> pieces;
    for (std::int64_t begin = 0, step = 1; begin < s.tokens; begin += step, step = step * 5 % 127 + 1) {
      step = std::min(step, s.tokens - begin);
      std::vector<float> part(static_cast<std::size_t>(step * width)), rest(static_cast<std::size_t>(beside * width));
      const AttendSequence batch[] = {
          {other.queries.data(), rest.data(), beside, 0, other.pages},
          {sequence.queries.data() + begin * width, part.data(), step, begin, sequence.pages}};
      AttendScratch scratch;
      attend(kv, options(s), batch, scratch);
      pieces.insert(pieces.end(), part.begin(), part.end());
    }
    EXPECT_EQ(pieces, whole) << s.heads << "/" << s.kv_heads << " x " << s.head_dim;
  }
}

TEST_P(Attention, NanReachesOnlyWhoSeesIt) {
  const Shape s{2, 1, 64, 20};
  const KvLayout kv = layout(s);
  Sequence sequence(kv, s, GetParam().compute, 3);
  sequence.keys[10 * 64 + 3] = NAN;
  kv.store(const_cast<std::byte*>(sequence.pages[0]), 0, 10, &sequence.keys[10 * 64], &sequence.values[10 * 64]);
  const std::vector<float> out = attend_from(kv, sequence, 0, s.tokens, options(s));
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(std::isnan(out[i]), i >= 10 * 128) << i;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Isa isa : kernels::cpu::isa_levels()) {
    all.push_back({isa, Elem::f32, Elem::f32});
    all.push_back({isa, Elem::f32, Elem::int8});
    all.push_back({isa, Elem::bf16, Elem::bf16});
    all.push_back({isa, Elem::bf16, Elem::int8});
    for (const Elem compute : {Elem::f32, Elem::bf16})
      for (const bool products : {false, true}) all.push_back({isa, compute, Elem::e4m3, products});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Isas, Attention, testing::ValuesIn(cases()), label);

}  // namespace
}  // namespace lowp::ops
