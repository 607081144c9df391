// Every code of every element format, and rounding at every boundary between two codes.
#include "lowp/formats/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lowp/formats/philox.h"

namespace lowp::formats {
namespace {

class EveryElement : public testing::TestWithParam<std::size_t> {
 protected:
  Elem elem() const { return static_cast<Elem>(GetParam()); }
  const ElementFormat& format() const { return info(elem()); }
};

std::vector<std::size_t> narrow_elements() {
  std::vector<std::size_t> ids;
  for (std::size_t i = 0; i < kElements.size(); ++i)
    if (kElements[i].bits <= 16) ids.push_back(i);
  return ids;
}

// Value of a code by floating-point arithmetic, from the definition of the format.
double value_by_definition(const ElementFormat& f, std::uint32_t code) {
  if (!f.is_float()) {
    const int value = static_cast<int>(code);
    return f.is_signed && value >= (1 << (f.bits - 1)) ? value - (1 << f.bits) : value;
  }
  const int mantissa = static_cast<int>(code & ((1u << f.mantissa_bits) - 1));
  const int exponent = static_cast<int>((code >> f.mantissa_bits) & ((1u << f.exponent_bits) - 1));
  const int top = (1 << f.exponent_bits) - 1;
  const double sign = f.is_signed && (code >> (f.bits - 1)) ? -1 : 1;
  if (f.specials == Specials::ieee && exponent == top) return mantissa ? NAN : sign * INFINITY;
  if (f.specials == Specials::nan_only && exponent == top && mantissa == (1 << f.mantissa_bits) - 1) return NAN;
  const double fraction = mantissa / std::ldexp(1.0, f.mantissa_bits);
  if (exponent == 0 && f.mantissa_bits > 0) return sign * std::ldexp(fraction, 1 - f.bias);
  return sign * std::ldexp(1 + fraction, exponent - f.bias);
}

TEST_P(EveryElement, DecodesByDefinition) {
  for (std::uint32_t code = 0; code < (1u << format().bits); ++code) {
    const double expected = value_by_definition(format(), code);
    const double found = decode(elem(), code);
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(found)) << code;
    else
      EXPECT_EQ(found, expected) << code;
  }
}

TEST_P(EveryElement, EncodeInvertsDecode) {
  for (std::uint32_t code = 0; code < (1u << format().bits); ++code) {
    const float value = decode(elem(), code);
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(encode(elem(), value), code);
  }
}

TEST_P(EveryElement, RoundsToNearestTiesToEvenCode) {
  std::vector<std::pair<double, std::uint32_t>> values;  // finite, ascending; -0 left out
  for (std::uint32_t code = 0; code < (1u << format().bits); ++code) {
    const double value = value_by_definition(format(), code);
    if (std::isfinite(value) && !(value == 0 && code != 0)) values.emplace_back(value, code);
  }
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i + 1 < values.size(); ++i) {
    const auto [low, low_code] = values[i];
    const auto [high, high_code] = values[i + 1];
    const double middle = (low + high) / 2;
    const float x = static_cast<float>(middle);
    const auto value_of = [&](float y) { return static_cast<double>(decode(elem(), encode(elem(), y))); };
    if (static_cast<double>(x) == middle) {
      // Integers and signed zero have no sign bit to mask: the even one of two neighbours is the one with an even code.
      const double even = low_code % 2 == 0 || high == 0 ? low : high;
      const double expected = high == 0 || low == 0 ? 0 : even;
      EXPECT_EQ(value_of(x), expected) << "between " << low << " and " << high;
    }
    const float below = std::nextafter(x, -INFINITY), above = std::nextafter(x, INFINITY);
    if (below > low) EXPECT_EQ(value_of(below), low);
    if (above < high) EXPECT_EQ(value_of(above), high);
  }
}

TEST_P(EveryElement, SaturatesBeyondTheLargest) {
  const float largest = max_value(elem());
  EXPECT_EQ(decode(elem(), encode(elem(), INFINITY)), largest);
  EXPECT_EQ(decode(elem(), encode(elem(), std::numeric_limits<float>::max())), largest);
  if (format().is_signed) EXPECT_EQ(decode(elem(), encode(elem(), -INFINITY)), min_value(elem()));
}

TEST_P(EveryElement, NanStaysNanWhereThereIsOne) {
  const float found = decode(elem(), encode(elem(), NAN));
  EXPECT_EQ(std::isnan(found), format().specials != Specials::none);
}

TEST_P(EveryElement, ToSpecialOverflowsToInfinityOrNan) {
  if (!format().is_float() || elem() == Elem::bf16) return;
  const float found = round_to(elem(), std::numeric_limits<float>::max());
  if (format().specials == Specials::ieee) EXPECT_TRUE(std::isinf(found));
  if (format().specials == Specials::none) EXPECT_EQ(found, max_value(elem()));
}

INSTANTIATE_TEST_SUITE_P(Codec, EveryElement, testing::ValuesIn(narrow_elements()),
                         [](const auto& instance) { return std::string(kElements[instance.param].name); });

TEST(Codec, PublishedVectors) {
  // torchao-spec 1.3, checkpoint-formats appendix A.
  EXPECT_EQ(encode(Elem::e3m2, 29), 0b011111u);
  EXPECT_EQ(encode(Elem::e3m2, 26), 0b011110u);
  EXPECT_EQ(encode(Elem::e3m2, 0.1251f), 0b000010u);
  EXPECT_EQ(encode(Elem::e3m2, 0.0314f), 0b000001u);
  EXPECT_EQ(encode(Elem::e3m2, 0.03f), 0u);
  const float values[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 7.0f, -0.0f};
  const float rounded[] = {0, 1, 1, 2, 2, 4, 4, 6, -0.0f};
  for (std::size_t i = 0; i < std::size(values); ++i)
    EXPECT_EQ(round_to(Elem::e2m1, values[i]), rounded[i]) << values[i];
  EXPECT_EQ(encode(Elem::e2m1, -0.1f), 8u);
  EXPECT_EQ(encode(Elem::e4m3, 1), 0x38u);
  EXPECT_EQ(encode(Elem::e4m3, -448), 0xFEu);
  EXPECT_EQ(decode(Elem::e8m0, 0), 0x1p-127f);
  EXPECT_EQ(decode(Elem::e8m0, 0x80), 2.0f);
  EXPECT_TRUE(std::isnan(decode(Elem::e8m0, 0xFF)));
}

TEST(Codec, Bf16FastPathEqualsTheGeneralOne) {
  std::uint32_t bits = 1;
  for (int i = 0; i < 2000000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const float x = bits_float(bits);
    const float general = decode(Elem::bf16, encode(Elem::bf16, x, Overflow::to_special));
    const float fast = round_to(Elem::bf16, x);
    if (std::isnan(x))
      ASSERT_TRUE(std::isnan(general) && std::isnan(fast));
    else
      ASSERT_EQ(float_bits(general), float_bits(fast)) << x;
  }
}

TEST(Codec, RoundHalfEven) {
  for (const float x : {-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 8388607.5f, -0.2f, 1e10f})
    EXPECT_EQ(float_bits(round_half_even(x)), float_bits(std::nearbyint(x))) << x;
}

// The codec is usable at compile time, as kernels need it.
static_assert(decode(Elem::e4m3, encode(Elem::e4m3, 3.3f)) == 3.25f);
static_assert(max_value(Elem::e5m2) == 57344 && max_value(Elem::e2m3) == 7.5f && max_exponent(Elem::e2m1) == 2);

TEST(Philox, KnownAnswers) {
  // The known answers that Random123 ships for philox4x32-10.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(StochasticRounding, GoesToEitherNeighbourInProportion) {
  for (const Elem e : {Elem::e4m3, Elem::e5m2, Elem::e2m3, Elem::e3m2, Elem::e2m1}) {
    const std::uint32_t largest = max_code(e), sign = 1u << (info(e).bits - 1);
    for (std::uint32_t code = 0; code <= largest; ++code) {
      const float low = decode(e, code);
      for (const std::uint32_t random : {0u, 0x80000000u, ~0u}) {  // what is on the grid stays
        ASSERT_EQ(encode_stochastic(e, low, random), code) << name(e);
        ASSERT_EQ(encode_stochastic(e, -low, random), code | sign) << name(e);
      }
      if (code == largest) continue;
      const float high = decode(e, code + 1);
      for (const float part : {0.25f, 0.5f, 0.8125f}) {
        const float x = low + (high - low) * part;
        const auto border = static_cast<std::uint32_t>(static_cast<double>(part) * 4294967296.0);
        ASSERT_EQ(encode_stochastic(e, x, 0), code + 1) << name(e) << " " << x;
        ASSERT_EQ(encode_stochastic(e, x, border - 1), code + 1) << name(e) << " " << x;
        ASSERT_EQ(encode_stochastic(e, x, border), code) << name(e) << " " << x;
        ASSERT_EQ(encode_stochastic(e, -x, ~0u), code | sign) << name(e) << " " << x;
      }
    }
    for (const float beyond : {max_value(e) * 1.01f, 3e38f, std::numeric_limits<float>::infinity()})
      EXPECT_EQ(encode_stochastic(e, -beyond, 0), largest | sign);
  }
}

TEST(StochasticRounding, KeepsTheMean) {
  double sum = 0;
  constexpr int kDraws = 1 << 16;
  for (int i = 0; i < kDraws; ++i)
    sum += decode(Elem::e2m1, encode_stochastic(Elem::e2m1, 2.3f, random_bits({7, 0}, static_cast<std::uint64_t>(i))));
  EXPECT_NEAR(sum / kDraws, 2.3, 0.01);  // five standard deviations
}

}  // namespace
}  // namespace lowp::formats
