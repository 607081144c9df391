// Properties that hold for every format of the table, on random shapes and data.
#include "lowp/ops/cast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "lowp/base/error.h"

namespace lowp::ops {
namespace {

using formats::BlockFormat;
using formats::Rule;

Tensor random_matrix(std::mt19937& rng, DType type, std::int64_t m, std::int64_t k, float scale = 0.05f) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<std::size_t>(m * k));
  for (float& v : values) v = normal(rng);
  Tensor x(type, {m, k});
  store_rounded(x, 0, values);
  return x;
}

// A plausible table for codebook formats: their fitting is an algorithm of its own.
std::vector<float> codebook_for(const BlockFormat& format) {
  std::vector<float> table;
  if (format.rule == Rule::codebook)
    for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 4);
  return table;
}

bool equal(const Tensor& a, const Tensor& b) {
  return a.bytes().size() == b.bytes().size() && std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

class EveryFormat : public testing::TestWithParam<std::string> {
 protected:
  BlockFormat format() const { return formats::block_format(GetParam()); }
  std::mt19937 rng{20260101};

  // A shape that fits: the group times 1 to 3 columns, any number of rows.
  std::pair<std::int64_t, std::int64_t> shape() {
    const std::int64_t group = format().super_cols > 0   ? format().super_cols
                               : format().group_cols > 1 ? format().group_cols
                                                         : 2;
    return {std::uniform_int_distribution<std::int64_t>(1, 150)(rng),
            group * std::uniform_int_distribution<std::int64_t>(1, 3)(rng)};
  }
};

TEST_P(EveryFormat, ValuesComeBackWithinTheFormatsStep) {
  for (const DType type : {DType::bf16, DType::f32, DType::f16})
    for (int round = 0; round < 3; ++round) {
      const auto [m, k] = shape();
      const Tensor x = random_matrix(rng, type, m, k);
      const QuantizedMatrix q = quantize(x.view(), format(), {}, codebook_for(format()));
      // About 6 dB a bit of integers or of mantissa, less what the scale costs; one bit keeps only the sign.
      const auto& element = formats::info(format().element);
      const int bits = element.bits;
      const double floor_db = format().rule == Rule::codebook ? 0
                              : element.is_float()            ? 6.0 * element.mantissa_bits + 10
                                                              : 6.0 * bits - 12;
      if (bits > 1) EXPECT_GT(sqnr(x.view(), q, {}), floor_db) << m << " x " << k;
    }
}

TEST_P(EveryFormat, DoesNotDependOnHowRowsAreSplit) {
  if (format().group_rows == 0 || format().tensor_scale) return;
  const std::int64_t height = format().group_rows, k = shape().second;
  const Tensor x = random_matrix(rng, DType::bf16, 3 * height, k);
  const QuantizedMatrix whole = quantize(x.view(), format(), {}, codebook_for(format()));
  const std::size_t band = x.bytes().size() / 3;
  for (std::size_t i = 0; i < 3; ++i) {
    const TensorView part{DType::bf16, {height, k}, x.view().bytes.subspan(i * band, band)};
    const QuantizedMatrix q = quantize(part, format(), {}, codebook_for(format()));
    EXPECT_EQ(std::memcmp(q.codes.bytes().data(), whole.codes.bytes().data() + i * q.codes.bytes().size(),
                          q.codes.bytes().size()),
              0);
  }
}

TEST_P(EveryFormat, ZeroStaysZero) {
  const auto [m, k] = shape();
  const Tensor x(DType::bf16, {m, k});
  const QuantizedMatrix q = quantize(x.view(), format(), {}, codebook_for(format()));
  if (format().zero_point == formats::ZeroPoint::floating || format().rule == Rule::codebook)
    return;  // need not hold 0
  const Tensor back = dequantize(q, DType::f32);
  for (std::int64_t i = 0; i < m * k; ++i) ASSERT_EQ(back.as<float>()[i], 0) << i;
}

TEST_P(EveryFormat, NanIsRefusedOrPoisonsItsBlockOnly) {
  const auto [m, k] = shape();
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Tensor x = random_matrix(rng, DType::f32, m, k);
    const std::int64_t at = m * k - 1;
    x.as<float>()[at] = bad;
    const bool mx = format().rule == Rule::mx;
    CastOptions options;
    options.name = "w.safetensors: tensor 'a.b'";
    try {
      const QuantizedMatrix q = quantize(x.view(), format(), options, codebook_for(format()));
      ASSERT_TRUE(mx);
      const Tensor back = dequantize(q, DType::f32);
      for (std::int64_t i = 0; i < m * k; ++i)
        ASSERT_EQ(std::isnan(back.as<float>()[i]), i > at - format().group_cols) << i;
    } catch (const Error& error) {
      ASSERT_FALSE(mx);
      const std::string text = error.what();
      EXPECT_NE(text.find("tensor 'a.b'"), std::string::npos) << text;
      EXPECT_NE(text.find(fmt::format("[{}, {}]", m - 1, k - 1)), std::string::npos) << text;
    }
  }
}

TEST_P(EveryFormat, CastingTheDecodedValuesAgainChangesNothing) {
  // A fixed point of the format: true where the scale of decoded values is the scale they were decoded with, which the
  // one more negative number of two's complement would double.
  if (format().rule != Rule::mx || !formats::info(format().element).is_float()) return;
  const auto [m, k] = shape();
  for (const formats::Scaling scaling :
       {formats::Scaling::floor, formats::Scaling::ceil, formats::Scaling::even, formats::Scaling::rceil}) {
    CastOptions options;
    options.scaling = scaling;
    const Tensor x = random_matrix(rng, DType::f32, m, k);
    const Tensor once = dequantize(quantize(x.view(), format(), options), DType::f32);
    const Tensor twice = dequantize(quantize(once.view(), format(), options), DType::f32);
    if (scaling == formats::Scaling::floor)
      EXPECT_TRUE(equal(once, twice));
    else
      EXPECT_GT(sqnr(once.view(), quantize(once.view(), format(), options), {}), 10);
  }
}

INSTANTIATE_TEST_SUITE_P(Cast, EveryFormat, testing::ValuesIn(formats::block_format_names()),
                         [](const auto& instance) { return instance.param; });

TEST(Cast, ZeroRowsAndTensorsWhereTorchaoDividesByZero) {
  Tensor x(DType::bf16, {2, 32});
  x.as<std::uint16_t>()[32] = 0x3F80;  // the second row is not zero
  const QuantizedMatrix row = quantize(x.view(), formats::block_format("fp8"), {});
  EXPECT_EQ(row.scale.as<float>()[0], 1.0f);
  EXPECT_EQ(row.codes.as<std::uint8_t>()[0], 0);
  const Tensor zero(DType::bf16, {2, 32});
  const QuantizedMatrix tensor = quantize(zero.view(), formats::block_format("fp8_tensor"), {});
  EXPECT_EQ(tensor.scale.as<float>()[0], 1.0f);
  const QuantizedMatrix two_level = quantize(zero.view(), formats::block_format("nvfp4"), {});
  EXPECT_EQ(two_level.tensor_scale, 1.0f);
  EXPECT_EQ(two_level.scale.as<std::uint8_t>()[0], 0x38);  // 1.0
  EXPECT_EQ(two_level.codes.as<std::uint8_t>()[0], 0);
}

TEST(Cast, ZeroBlockBesideATensorScaleOfOne) {
  Tensor x(DType::bf16, {1, 32});
  x.as<std::uint16_t>()[31] = 0x4528;  // 2688, whose tensor scale is 1, as that of zeros
  const QuantizedMatrix q = quantize(x.view(), formats::block_format("nvfp4"), {});
  EXPECT_EQ(q.tensor_scale, 1.0f);
  EXPECT_EQ(q.scale.as<std::uint8_t>()[0], 0x08);  // 2^-6, the smallest
  EXPECT_EQ(q.scale.as<std::uint8_t>()[1], 0x7E);  // 448
}

TEST(Cast, SharedStatisticsDecideTheTensorScale) {
  std::mt19937 rng(7);
  const Tensor x = random_matrix(rng, DType::bf16, 4, 64);
  CastOptions options;
  options.shared = formats::GroupStats{-2, 1, true, false};
  EXPECT_EQ(quantize(x.view(), formats::block_format("nvfp4"), options).tensor_scale, 2.0f / 2688);
}

TEST(Cast, MxConformanceVectors) {
  // torchao-spec 2.4, with what torchao 0.18 does where a scale byte of 0 is concerned (docs/NUMERICS.md).
  const auto scale_of = [](float value, formats::Scaling scaling) {
    Tensor x(DType::f32, {1, 32});
    x.as<float>()[5] = value;
    CastOptions options;
    options.scaling = scaling;
    const QuantizedMatrix q = quantize(x.view(), formats::block_format("mxfp8"), options);
    return std::pair<int, int>(q.scale.as<std::uint8_t>()[0], q.codes.as<std::uint8_t>()[5]);
  };
  using formats::Scaling;
  EXPECT_EQ(scale_of(448, Scaling::floor), std::pair(127, 0x7E));
  EXPECT_EQ(scale_of(448, Scaling::rceil), std::pair(127, 0x7E));
  EXPECT_EQ(scale_of(-480, Scaling::floor), std::pair(127, 0xFE));
  EXPECT_EQ(scale_of(480, Scaling::rceil), std::pair(128, 0x77));
  EXPECT_EQ(scale_of(bits_float(0x43FFFFFF), Scaling::floor), std::pair(127, 0x7E));
  EXPECT_EQ(scale_of(bits_float(0x43FFFFFF), Scaling::rceil), std::pair(128, 0x78));
  EXPECT_EQ(scale_of(1, Scaling::rceil), std::pair(119, 0x78));
  EXPECT_EQ(scale_of(NAN, Scaling::floor), std::pair(255, 0x7F));
  EXPECT_EQ(scale_of(-INFINITY, Scaling::rceil), std::pair(255, 0x7F));
}

TEST(Cast, MatchesAllScaleModesOfThePublishedTable) {
  // torchao-spec A.1: floor, ceil, even, rceil for e4m3, e5m2, e2m3, e3m2, e2m1.
  using formats::Elem;
  const struct {
    float amax;
    int expected[5][4];
  } rows[] = {
      {1.0f,
       {{119, 119, 119, 119}, {112, 112, 112, 112}, {125, 125, 125, 125}, {123, 123, 123, 123}, {125, 125, 125, 125}}},
      {1.75f,
       {{119, 120, 119, 119}, {112, 113, 112, 112}, {125, 126, 125, 125}, {123, 124, 123, 123}, {125, 126, 126, 126}}},
      {1.9375f,
       {{119, 120, 120, 120}, {112, 113, 113, 113}, {125, 126, 126, 126}, {123, 124, 124, 124}, {125, 126, 126, 126}}},
      {150.0f,
       {{126, 127, 126, 126}, {119, 120, 119, 119}, {132, 133, 132, 132}, {130, 131, 130, 130}, {132, 133, 132, 132}}},
      {449.0f,
       {{127, 128, 127, 128}, {120, 121, 120, 121}, {133, 134, 133, 133}, {131, 132, 131, 132}, {133, 134, 134, 134}}},
  };
  const Elem elements[] = {Elem::e4m3, Elem::e5m2, Elem::e2m3, Elem::e3m2, Elem::e2m1};
  for (const auto& row : rows)
    for (int e = 0; e < 5; ++e)
      for (int s = 0; s < 4; ++s)
        EXPECT_EQ(formats::mx_scale_code(elements[e], static_cast<formats::Scaling>(s), row.amax),
                  static_cast<unsigned>(row.expected[e][s]))
            << row.amax << " " << formats::name(elements[e]) << " " << s;
}

// torchao's training kernels run on GPUs alone: their formulas by hand, on one block.
TEST(Cast, TrainingNumericsOfNvfp4) {
  Tensor x(DType::f32, {1, 32});
  for (int i = 0; i < 16; ++i) x.as<float>()[i] = static_cast<float>(i) * 0.1f;
  x.as<float>()[31] = 30;
  const QuantizedMatrix q = quantize(x.view(), formats::block_format("nvfp4_training"), {});
  const float gain = 2688.0f / 30, decode_scale = 1.0f / gain;
  EXPECT_EQ(q.tensor_scale, decode_scale);
  const std::uint32_t scale = formats::encode(formats::Elem::e4m3, 15 * 0.1f / 6 * gain);
  EXPECT_EQ(q.scale.as<std::uint8_t>()[0], scale);
  const float multiplier = 1.0f / (formats::decode(formats::Elem::e4m3, scale) * decode_scale);
  for (int i = 0; i < 16; ++i)
    EXPECT_EQ(q.codes.as<std::uint8_t>()[i / 2] >> (i % 2 * 4) & 15u,
              formats::encode(formats::Elem::e2m1, static_cast<float>(i) * 0.1f * multiplier));
  const Tensor zero(DType::bf16, {16, 16});
  const QuantizedMatrix block = quantize(zero.view(), formats::block_format("nvfp4_training_block16"), {});
  EXPECT_EQ(block.tensor_scale, 1.0f);
  EXPECT_EQ(block.scale.bytes().size(), 1u);
  EXPECT_EQ(block.scale.as<std::uint8_t>()[0], 0x08);  // 2^-6, the smallest that torchao 0.18 allows
}

TEST(Cast, StochasticRoundingTakesItsBitsFromSeedAndPlace) {
  std::mt19937 rng(5);
  const Tensor x = random_matrix(rng, DType::bf16, 6, 64);
  const formats::BlockFormat format = formats::block_format("mxfp8");
  CastOptions options;
  options.stochastic = formats::Stochastic{42, 0};
  const QuantizedMatrix q = quantize(x.view(), format, options), nearest = quantize(x.view(), format, {});
  EXPECT_TRUE(equal(q.scale, nearest.scale));
  EXPECT_FALSE(equal(q.codes, nearest.codes));
  for (std::int64_t i = 0; i < 6 * 64; ++i) {
    const float scale = formats::decode(formats::Elem::e8m0, q.scale.as<std::uint8_t>()[i / 32]);
    ASSERT_EQ(q.codes.as<std::uint8_t>()[i],
              formats::encode_stochastic(formats::Elem::e4m3, load_one(x.view(), i) / scale,
                                         formats::random_bits({42, 0}, static_cast<std::uint64_t>(i))));
  }
  // Rows 2.. alone, told where they begin.
  const TensorView rest{x.dtype(), {4, 64}, x.view().bytes.subspan(2 * 64 * 2)};
  options.stochastic->first = 2 * 64;
  const QuantizedMatrix part = quantize(rest, format, options);
  EXPECT_EQ(std::memcmp(part.codes.bytes().data(), q.codes.bytes().data() + 2 * 64, 4 * 64), 0);
  EXPECT_THROW(quantize(x.view(), formats::block_format("int8"), options), Error);
}

TEST(Cast, HadamardRunsAreOrthonormalAndSigned) {
  Tensor x(DType::f32, {1, 32});
  x.as<float>()[3] = 4;  // the first negated place
  const Tensor once = hadamard16(x.view(), "x");
  for (int i = 0; i < 16; ++i) EXPECT_EQ(once.as<float>()[i], (i & 1) != (i >> 1 & 1) ? 1.0f : -1.0f) << i;
  for (int i = 16; i < 32; ++i) EXPECT_EQ(once.as<float>()[i], 0.0f);
  EXPECT_THROW(hadamard16(Tensor(DType::f32, {2, 24}).view(), "x"), Error);
}

TEST(Cast, DecodesToHalf) {
  std::mt19937 rng(1);
  const Tensor x = random_matrix(rng, DType::f16, 4, 64);
  const QuantizedMatrix q = quantize(x.view(), formats::block_format("int4_g32_asym"), {});
  const Tensor exact = dequantize(q, DType::f32), half = dequantize(q, DType::f16);
  Tensor expected(DType::f16, {4, 64});
  store_rounded(expected, 0, {exact.as<float>(), 4 * 64});
  EXPECT_TRUE(std::ranges::equal(half.bytes(), expected.bytes()));
}

}  // namespace
}  // namespace lowp::ops
