// Every vector variant against the oracle, bit for bit: all formats, input types, scale modes; values of every kind.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "lowp/kernels/cpu/cast.h"
#include "lowp/kernels/ref/cast.h"

namespace lowp::kernels {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::Scaling;

constexpr DType kInputs[] = {DType::bf16, DType::f16, DType::f32};
constexpr Scaling kScalings[] = {Scaling::floor, Scaling::ceil, Scaling::even, Scaling::rceil};

bool with_nonfinite(const BlockFormat& format) { return format.rule == Rule::mx || format.rule == Rule::plain; }

// As ops::allocate, which stands above this layer.
QuantizedMatrix allocate(const BlockFormat& format, Elem input, std::int64_t m, std::int64_t k) {
  QuantizedMatrix q;
  q.format = format;
  q.m = m;
  q.k = k;
  q.input = input;
  const int bits = formats::info(format.element).bits;
  q.codes = Tensor(bits == 32   ? DType::f32
                   : bits == 16 ? DType::u16
                                : DType::u8,
                   {m, format.two_codes_a_byte() ? k / 2 : k});
  const Shape scales = {format.scale_rows(m), format.scale_cols(k)};
  if (format.has_scale()) q.scale = Tensor(formats::info(format.scale).bits > 8 ? DType::f32 : DType::u8, scales);
  if (format.zero_point != formats::ZeroPoint::none)
    q.zero_point = Tensor(format.zero_point == formats::ZeroPoint::integer ? DType::i8 : DType::f32, scales);
  if (format.rule == Rule::codebook) {
    q.codebook = Tensor(DType::f32, {16});
    for (int i = 0; i < 16; ++i) q.codebook.as<float>()[i] = std::sin(static_cast<float>(3 * i)) * 0.9f;
  }
  return q;
}

Tensor tensor_of(const std::vector<float>& values, DType type, std::int64_t m, std::int64_t k) {
  Tensor x(type, {m, k});
  store_rounded(x, 0, std::span(values).first(static_cast<std::size_t>(m * k)));
  return x;
}

void replace_nonfinite(Tensor& x) {
  const std::vector<float> one = {1};
  for (std::int64_t i = 0; i < element_count(x.shape()); ++i)
    if (!is_finite(load_one(x.view(), i))) store_rounded(x, i, one);
}

void expect_same(const Tensor& expected, const Tensor& found, const char* what) {
  ASSERT_EQ(expected.bytes().size(), found.bytes().size());
  if (expected.empty()) return;
  for (std::size_t i = 0; i < expected.bytes().size(); ++i)
    ASSERT_EQ(static_cast<int>(expected.bytes()[i]), static_cast<int>(found.bytes()[i])) << what << ", byte " << i;
}

// Equal bits; any NaN equals any NaN: the payload of a product of two is nobody's promise.
void expect_same_values(const Tensor& expected, const Tensor& found) {
  const std::int64_t count = element_count(expected.shape());
  std::vector<float> a(static_cast<std::size_t>(count)), b(a.size());
  load_f32(expected.view(), 0, count, a.data());
  load_f32(found.view(), 0, count, b.data());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_TRUE(float_bits(a[i]) == float_bits(b[i]) || (std::isnan(a[i]) && std::isnan(b[i])))
        << a[i] << " and " << b[i] << " at " << i;
}

class CastVariant : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (!cpu::runs(GetParam())) GTEST_SKIP() << "this CPU has no " << cpu::name(GetParam());
    fast = cpu::cast_kernels(GetParam());
  }

  void check_decode(const QuantizedMatrix& q) {
    for (const DType type : {DType::bf16, DType::f32}) {
      Tensor expected(type, {q.m, q.k}), found(type, {q.m, q.k});
      ref::kCast.dequantize(q, type, 0, q.m, expected.bytes().data());
      fast->dequantize(q, type, 0, q.m, found.bytes().data());
      expect_same_values(expected, found);
    }
  }

  void check(const Tensor& x, const BlockFormat& format, Scaling scaling) {
    const std::int64_t m = x.shape()[0], k = x.shape()[1];
    SCOPED_TRACE(fmt::format("{} from {} [{}, {}], {}", format.name, name(x.dtype()), m, k, formats::name(scaling)));
    const MatrixStats stats = ref::kCast.stats(x.view(), 0, m), mine = fast->stats(x.view(), 0, m);
    EXPECT_EQ(stats.first_nonfinite, mine.first_nonfinite);
    EXPECT_EQ(stats.values.finite, mine.values.finite);
    if (stats.values.finite) {
      EXPECT_EQ(stats.values.min, mine.values.min);
      EXPECT_EQ(stats.values.max, mine.values.max);
    }
    QuantizedMatrix expected = allocate(format, element_of(x.dtype()), m, k), found = expected;
    if (format.tensor_scale)
      expected.tensor_scale = found.tensor_scale = formats::nvfp4_tensor_scale(stats.values.amax());
    const bool finite = ref::kCast.quantize({x.view(), scaling, stats.values, &expected, {}}, 0, m);
    const bool found_finite = fast->quantize({x.view(), scaling, stats.values, &found, {}}, 0, m);
    if (!with_nonfinite(format)) EXPECT_EQ(finite, found_finite);
    expect_same(expected.scale, found.scale, "scale");
    expect_same(expected.zero_point, found.zero_point, "zero point");
    expect_same(expected.codes, found.codes, "codes");
    if (testing::Test::HasFatalFailure()) return;
    check_decode(expected);
    std::vector<double> sums(static_cast<std::size_t>(4 * m));
    ref::kCast.errors(x.view(), expected, 0, m, sums.data(), sums.data() + m);
    fast->errors(x.view(), expected, 0, m, sums.data() + 2 * m, sums.data() + 3 * m);
    for (std::int64_t i = 0; i < 2 * m; ++i)
      if (std::isfinite(sums[i])) ASSERT_NEAR(sums[2 * m + i], sums[i], 1e-12 * sums[i]);
  }

  void check_all(const std::vector<float>& values, std::int64_t m, std::int64_t k, const BlockFormat& format) {
    for (const DType type : kInputs)
      for (const Scaling scaling : kScalings) {
        if (format.rule != Rule::mx && scaling != Scaling::floor) continue;
        Tensor x = tensor_of(values, type, m, k);
        if (!with_nonfinite(format)) replace_nonfinite(x);
        check(x, format, scaling);
        if (HasFatalFailure()) return;
      }
  }

  const CastKernels* fast = nullptr;
  std::mt19937 rng{20261127};
};

// A width that fits the format and is no multiple of a vector where that may be.
std::int64_t odd_width(const BlockFormat& format, std::int64_t about) {
  const std::int64_t group = std::max({format.group_cols, format.super_cols, 1});
  const std::int64_t k = group == 1 ? about + 1 : round_up(about, group);
  return format.two_codes_a_byte() ? round_up<std::int64_t>(k, 2) : k;
}

TEST_P(CastVariant, NormalValuesWithOutliersZerosAndTies) {
  std::normal_distribution<float> normal(0, 0.05f);
  for (const std::string& name : formats::block_format_names()) {
    const BlockFormat format = formats::block_format(name);
    for (const std::int64_t about : {1, 30, 100, 700}) {
      const std::int64_t k = odd_width(format, about), m = about == 30 ? 131 : 5;
      std::vector<float> values(static_cast<std::size_t>(m * k));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::size_t row = i / static_cast<std::size_t>(k);
        values[i] = row % 5 == 1 ? 0.0f : normal(rng);
        if (row % 5 == 2) values[i] = static_cast<float>(static_cast<int>(rng() % 64) - 32) * 0.25f;  // ties
        if (row % 5 == 3) values[i] = std::fabs(values[i]);
        if (rng() % 97 == 0) values[i] *= 1000;
        if (rng() % 89 == 0) values[i] = -0.0f;
      }
      check_all(values, m, k, format);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(CastVariant, EveryFiniteHalfPrecisionNumber) {
  for (const DType type : {DType::bf16, DType::f16}) {
    std::vector<std::uint16_t> codes(65536);
    std::iota(codes.begin(), codes.end(), std::uint16_t{0});
    for (const bool sorted : {true, false}) {  // neighbours of like size, and of any
      if (!sorted) std::shuffle(codes.begin(), codes.end(), rng);
      for (const std::string& name : formats::block_format_names()) {
        const BlockFormat format = formats::block_format(name);
        Tensor x(type, {256, 256});
        std::memcpy(x.bytes().data(), codes.data(), x.bytes().size());
        if (!with_nonfinite(format)) replace_nonfinite(x);
        for (const Scaling scaling : kScalings) {
          if (format.rule == Rule::mx || scaling == Scaling::floor) check(x, format, scaling);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(CastVariant, RandomBitsOfF32) {
  for (const std::string& name : formats::block_format_names()) {
    const BlockFormat format = formats::block_format(name);
    for (const bool near : {false, true}) {  // exponents anywhere, or within a group's reach
      const std::int64_t m = 24, k = 256;
      std::vector<float> values(static_cast<std::size_t>(m * k));
      for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint32_t u = static_cast<std::uint32_t>(rng());
        if (near) u = (u & 0x807FFFFFu) | ((100 + static_cast<std::uint32_t>(i / 2048) * 12 + rng() % 14) << 23);
        values[i] = bits_float(u);
      }
      check_all(values, m, k, format);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(CastVariant, NonFiniteValuesAreReported) {
  for (const std::string& name : formats::block_format_names()) {
    const BlockFormat format = formats::block_format(name);
    for (const DType type : kInputs)
      for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
        const std::int64_t m = 3, k = odd_width(format, 300);
        std::vector<float> values(static_cast<std::size_t>(m * k), 0.5f);
        values[rng() % values.size()] = bad;
        const Tensor x = tensor_of(values, type, m, k);
        if (with_nonfinite(format)) {
          check(x, format, Scaling::floor);
        } else if (format.group_rows != 0) {
          QuantizedMatrix q = allocate(format, element_of(type), m, k);
          EXPECT_FALSE(fast->quantize({x.view(), Scaling::floor, {}, &q, {}}, 0, m)) << name;
        }
        if (HasFatalFailure()) return;
      }
  }
}

TEST_P(CastVariant, DecodesEveryCodeAndScale) {
  for (const std::string& name : formats::block_format_names()) {
    const BlockFormat format = formats::block_format(name);
    SCOPED_TRACE(name);
    const std::int64_t m = 65, k = odd_width(format, 700);
    QuantizedMatrix q = allocate(format, Elem::bf16, m, k);
    for (std::byte& byte : q.codes.bytes()) byte = static_cast<std::byte>(rng());
    if (formats::info(format.scale).bits > 8) {
      for (std::int64_t i = 0; i < element_count(q.scale.shape()); ++i)
        q.scale.as<float>()[i] =
            std::ldexp(1.0f + static_cast<float>(rng() % 1000) / 1000, static_cast<int>(rng() % 40) - 30);
    } else {
      std::uint8_t next = 0;
      for (std::byte& byte : q.scale.bytes()) byte = static_cast<std::byte>(next++);
    }
    for (std::int64_t i = 0; i < element_count(q.zero_point.shape()) && !q.zero_point.empty(); ++i) {
      if (format.zero_point == formats::ZeroPoint::integer)
        q.zero_point.as<std::int8_t>()[i] = static_cast<std::int8_t>(rng());
      else
        q.zero_point.as<float>()[i] = static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 999;
    }
    if (format.tensor_scale) q.tensor_scale = 0.0371f;
    check_decode(q);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Cast, CastVariant, testing::Values(cpu::Isa::avx512, cpu::Isa::avx2),
                         [](const auto& instance) { return std::string(cpu::name(instance.param)); });

}  // namespace
}  // namespace lowp::kernels
