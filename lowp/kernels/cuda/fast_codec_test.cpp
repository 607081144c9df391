// The GPU's fast encoders against formats/, on the host: exhaustively where the domain is small enough.
#include "lowp/kernels/cuda/fast_codec.h"

#include <gtest/gtest.h>

#include <random>

namespace lowp::kernels::cuda {
namespace {

// Every f16 and bf16 value, both neighbours in f32 of every midpoint and code, and random bit patterns; no NaN.
std::vector<float> interesting(Elem e) {
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    values.push_back(bits_float(i << 16));
    values.push_back(formats::decode(Elem::f16, i));
  }
  const std::uint32_t codes = 1u << formats::info(e).bits;
  for (std::uint32_t a = 0; a < codes; ++a)
    for (std::uint32_t b = 0; b < codes; ++b) {
      const std::uint32_t middle = float_bits((formats::decode(e, a) + formats::decode(e, b)) / 2);
      for (int d = -2; d <= 2; ++d) values.push_back(bits_float(middle + static_cast<std::uint32_t>(d)));
    }
  std::mt19937 rng(1);
  for (int i = 0; i < 2000000; ++i) values.push_back(bits_float(rng()));
  std::erase_if(values, [](float v) { return v != v; });
  while (values.size() % 8) values.push_back(0);
  return values;
}

template <Elem E>
void check_encoders() {
  const std::vector<float> values = interesting(E);
  for (std::size_t i = 0; i < values.size(); i += 8) {
    float y[8];
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(i), 8, y);
    const std::uint64_t bytes = encode8_bytes<E>(y);
    std::uint32_t nibbles = 0;
    if constexpr (E == Elem::e2m1) {
      std::uint32_t sign[4];
      for (int j = 0; j < 4; ++j) sign[j] = detail::high_halves(float_bits(y[2 * j]), float_bits(y[2 * j + 1]));
      float magnitude[8];
      for (int j = 0; j < 8; ++j) magnitude[j] = std::fabs(y[j]);
      nibbles = encode8_e2m1(magnitude, sign);
    }
    for (int j = 0; j < 8; ++j) {
      const std::uint32_t expected = formats::encode(E, y[j]);
      ASSERT_EQ((bytes >> (8 * j)) & 0xFF, expected) << formats::name(E) << " " << y[j];
      if constexpr (E == Elem::e2m1) ASSERT_EQ((nibbles >> (4 * j)) & 0xF, expected) << formats::name(E) << " " << y[j];
    }
  }
}

TEST(FastCodec, EncodesLikeFormats) {
  check_encoders<Elem::e2m1>();
  check_encoders<Elem::e2m3>();
  check_encoders<Elem::e3m2>();
}

// Every bf16 value times powers of two that keep it a normal number, in every place of both orders.
TEST(FastCodec, PairsEncodeLikeFormats) {
  for (const int power : {-100, -3, 0, 5, 90, 126, -127}) {
    const float multiplier = exp2i(power);
    const std::uint32_t pair = (float_bits(multiplier) >> 16) * 0x00010001u;
    for (std::uint32_t base = 0; base < 65536; base += 4) {
      std::uint32_t value[16], word[8], columns[2];
      for (std::uint32_t i = 0; i < 16; ++i) {
        value[i] = (base + i % 4 * 16411u + i / 4) & 0xFFFFu;
        if ((value[i] & 0x7F80u) == 0x7F80u) value[i] = 0;
      }
      for (int i = 0; i < 8; ++i) word[i] = value[2 * i] | value[2 * i + 1] << 16;
      const std::uint32_t rows[2] = {encode8_pairs({word[0], word[1], word[2], word[3]}, pair),
                                     encode8_pairs({word[4], word[5], word[6], word[7]}, pair)};
      encode8_column_pairs(word, pair, 0x7FFF7FFFu, columns);
      for (int i = 0; i < 16; ++i) {
        const std::uint32_t expected = formats::encode(Elem::e2m1, bits_float(value[i] << 16) * multiplier);
        ASSERT_EQ((rows[i / 8] >> (i % 8 * 4)) & 0xF, expected) << bits_float(value[i] << 16) << " * " << multiplier;
        ASSERT_EQ((columns[i % 2] >> (i / 2 * 4)) & 0xF, expected) << bits_float(value[i] << 16) << " * " << multiplier;
      }
    }
  }
}

template <Elem E, Elem Input>
void check_scales() {
  std::vector<std::uint32_t> amaxes;
  if (Input != Elem::f32)
    for (std::uint32_t i = 0; i < 0x8000; ++i) amaxes.push_back(float_bits(formats::decode(Input, i)));
  else
    for (std::uint32_t i = 0; i < 0x7F800000u; i += 509) amaxes.push_back(i);
  const BlockSpec spec{E, Rule::mx, 1, 32, Elem::e8m0};
  for (const Scaling scaling : {Scaling::floor, Scaling::ceil, Scaling::even, Scaling::rceil})
    for (const std::uint32_t amax : amaxes) {
      formats::GroupStats stats;
      stats.add(bits_float(amax));
      const formats::GroupParams p = formats::choose_params(spec, Input, scaling, stats, 1);
      const std::uint32_t code = fast_mx_scale_code<E, Input>(scaling, mx_bump(E, scaling), amax);
      ASSERT_EQ(code, p.scale_code) << formats::name(E) << " " << formats::name(scaling) << " " << std::hex << amax;
      const float multiplier = mx_multiplier(scaling, code);
      if (p.poisoned)
        ASSERT_NE(multiplier, multiplier);
      else
        ASSERT_EQ(multiplier, p.multiplier) << formats::name(scaling) << " " << code;
    }
}

TEST(FastCodec, ScalesLikeFormats) {
  check_scales<Elem::e4m3, Elem::bf16>();
  check_scales<Elem::e4m3, Elem::f16>();
  check_scales<Elem::e4m3, Elem::f32>();
  check_scales<Elem::e5m2, Elem::bf16>();
  check_scales<Elem::e5m2, Elem::f16>();
  check_scales<Elem::e2m3, Elem::bf16>();
  check_scales<Elem::e2m3, Elem::f16>();
  check_scales<Elem::e3m2, Elem::bf16>();
  check_scales<Elem::e3m2, Elem::f16>();
  check_scales<Elem::e2m1, Elem::bf16>();
  check_scales<Elem::e2m1, Elem::f16>();
  check_scales<Elem::e2m1, Elem::f32>();
}

TEST(FastCodec, QuotientEncodesLikeADivision) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<float> mantissa(1, 2);
  std::uniform_int_distribution<int> exponent(-149, 127), below(-30, 9);
  const auto check = [](float x, float scale, bool far) {
    const Divisor d = make_divisor(scale);
    const float slow = x == 0 ? x : x / scale, quick = far ? limited_quotient(x, d) : quotient(x, d);
    ASSERT_EQ(formats::encode(Elem::e4m3, quick), formats::encode(Elem::e4m3, slow)) << x << " / " << scale;
    ASSERT_EQ(encode_integer(quick, -128, 127), formats::encode(Elem::int8, slow)) << x << " / " << scale;
  };
  for (int i = 0; i < 4000000; ++i) {
    // Short significands make exact ties likely; long ones make near ties.
    const std::uint32_t keep = i % 3 == 0 ? 0xFFFF0000u : i % 3 == 1 ? 0xFFFFE000u : 0xFFFFFFFFu;
    const float scale = bits_float(float_bits(std::ldexp(mantissa(rng), exponent(rng))) & keep);
    if (scale == 0) continue;
    const float x = bits_float(float_bits(std::ldexp(mantissa(rng), below(rng)) * scale) & keep) * (rng() % 2 ? 1 : -1);
    if (is_finite(x)) check(x, scale, i % 2);
    if (is_finite(x)) check(bits_float(rng() % 0x7F800000u), scale, true);
  }
  for (const float x : {0x1p-149f, -0x1p-133f, 0x1p-126f, 0.0f, -0.0f}) check(x, 0, false);
  check(3.0f, 0, true);
}

// Quotients of the largest magnitudes that have a bf16's 8 bits, ties and their neighbours among them.
TEST(FastCodec, ShortQuotientEncodesLikeADivision) {
  for (std::uint32_t s = 128; s < 256; ++s)
    for (std::uint32_t a = 128; a < 256; ++a)
      for (const int power : {-9, -8, -7, -3, 0, 1, 5, 7, 8}) {
        const float scale = static_cast<float>(s) * 0x1p-20f, x = std::ldexp(static_cast<float>(a), power) * 0x1p-20f;
        const SplitReciprocal r = split_reciprocal(make_divisor(scale));
        for (const float value : {x, -x}) {
          const float quick = short_quotient(value, r), slow = value / scale;
          ASSERT_EQ(formats::encode(Elem::e4m3, quick), formats::encode(Elem::e4m3, slow)) << value << " / " << scale;
          ASSERT_EQ(formats::round_to(Elem::bf16, quick), formats::round_to(Elem::bf16, slow))
              << value << " / " << scale;
        }
      }
}

TEST(FastCodec, IntegersOfEightEncodeLikeFormats) {
  for (const Elem e : {Elem::int4, Elem::int8, Elem::uint4, Elem::uint8}) {
    const float low = formats::min_value(e), high = formats::max_value(e);
    for (float q = -600; q < 600; q += 0.25f) {
      float sum[8];
      for (int i = 0; i < 8; ++i) sum[i] = q + 0.03125f * static_cast<float>(i) + kRoundToInteger;
      const std::uint64_t codes = encode8_integers(sum, low, high);
      for (int i = 0; i < 8; ++i)
        ASSERT_EQ((codes >> 8 * i) & formats::info(e).code_mask(),
                  formats::encode(e, q + 0.03125f * static_cast<float>(i)))
            << formats::name(e) << " " << q << " " << i;
    }
  }
}

TEST(FastCodec, Nvfp4ScalesLikeFormats) {
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> mantissa(1, 2);
  std::uniform_int_distribution<int> exponent(-80, 80), below(-20, 12);
  for (int i = 0; i < 2000000; ++i) {
    const bool two = i % 2;
    const float tensor_scale = two ? std::ldexp(mantissa(rng), exponent(rng)) : 1.0f;
    const std::uint32_t keep = i % 3 == 0 ? 0xFFFF0000u : 0xFFFFFFFFu;
    float amax = bits_float(float_bits(std::ldexp(mantissa(rng), below(rng)) * tensor_scale) & keep);
    if (i % 64 == 0) amax = i % 128 ? 0 : 0x1p-149f;
    formats::GroupStats stats;
    stats.add(amax);
    const BlockSpec spec{Elem::e2m1, Rule::nvfp4, 1, 16, Elem::e4m3, false, formats::ZeroPoint::none, two};
    const formats::GroupParams p = formats::choose_params(spec, Elem::f32, Scaling::rceil, stats, tensor_scale);
    const Nvfp4Scale s = two ? quick_nvfp4_scale(amax, tensor_scale, 1.0f / tensor_scale) : quick_nvfp4_scale(amax);
    ASSERT_EQ(s.code, p.scale_code) << amax << " / " << tensor_scale;
    ASSERT_EQ(s.multiplier, p.multiplier) << amax << " / " << tensor_scale;
  }
}

TEST(FastCodec, NormalE4m3ScalesRoundTrip) {
  for (std::uint32_t code = 0x08; code <= 0x7E; ++code)
    EXPECT_EQ(decode_normal_e4m3(code), formats::decode(Elem::e4m3, code)) << code;
}

}  // namespace
}  // namespace lowp::kernels::cuda
