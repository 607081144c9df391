#include "lowp/kernels/cpu/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/isa.h"

namespace lowp::kernels::cpu {
namespace {

using formats::Elem;

std::vector<float> normal(std::size_t count, unsigned seed, float sigma, bool bf16) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, sigma);
  std::vector<float> values(count);
  for (float& v : values) v = formats::round_to(bf16 ? Elem::bf16 : Elem::f32, distribution(random));
  return values;
}

std::vector<const ElementwiseKernels*> variants() {
  std::vector<const ElementwiseKernels*> found = {&kElementwisePortable};
#if defined(__x86_64__)
  if (runs(Isa::avx2)) found.push_back(&kElementwiseAvx2);
  if (runs(Isa::avx512)) found.push_back(&kElementwiseAvx512);
#endif
  return found;
}

void expect_same(const std::vector<float>& found, const std::vector<float>& expected, const std::string& what) {
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)), 0) << what;
}

class Elementwise : public testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  const std::size_t count = static_cast<std::size_t>(std::get<0>(GetParam()));
  const bool bf16 = std::get<1>(GetParam());
  const Elem compute = bf16 ? Elem::bf16 : Elem::f32;
  // Values may differ from libm's by an ulp or two before they are rounded.
  double bound(double value) const { return std::fabs(value) * (bf16 ? 0x1p-7 : 0x1p-21) + 1e-30; }
};

TEST_P(Elementwise, RmsNorm) {
  const std::vector<float> x = normal(count, 1, 3, bf16), weight = normal(count, 2, 1, bf16);
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
  const double scale = 1 / std::sqrt(squares / static_cast<double>(count) + 1e-5);
  std::vector<float> expected;
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> found(count);
    kernels->rms_norm(x.data(), weight.data(), static_cast<std::int64_t>(count), 1e-5f, true, bf16, found.data());
    if (expected.empty()) expected = found;
    expect_same(found, expected, kernels->name);
    for (std::size_t i = 0; i < count; ++i) {
      const double value = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
      EXPECT_NEAR(found[i], value, bound(value)) << kernels->name;
    }
  }
}

TEST_P(Elementwise, Rotate) {
  const std::vector<float> x = normal(2 * count, 3, 2, bf16), cos = normal(count, 4, 1, bf16),
                           sin = normal(count, 5, 1, bf16);
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> found = x;
    kernels->rotate(found.data(), cos.data(), sin.data(), static_cast<std::int64_t>(count), bf16);
    const auto round = [&](float v) { return formats::round_to(compute, v); };
    for (std::size_t i = 0; i < count; ++i) {
      const float a = x[i], b = x[i + count];
      EXPECT_EQ(found[i], round(round(a * cos[i]) + round(-b * sin[i]))) << kernels->name;
      EXPECT_EQ(found[i + count], round(round(b * cos[i]) + round(a * sin[i]))) << kernels->name;
    }
  }
}

// An unrounded quotient gives another result in bf16, and the same in f32.
TEST_P(Elementwise, RmsNormRoundsOnceOrTwice) {
  const std::vector<float> x = normal(count, 1, 3, bf16), weight = normal(count, 2, 1, bf16);
  std::vector<float> once(count), twice(count);
  for (const ElementwiseKernels* kernels : variants()) {
    kernels->rms_norm(x.data(), weight.data(), static_cast<std::int64_t>(count), 1e-5f, false, bf16, once.data());
    kernels->rms_norm(x.data(), weight.data(), static_cast<std::int64_t>(count), 1e-5f, true, bf16, twice.data());
    if (!bf16 || count >= 1000) EXPECT_EQ(once == twice, !bf16) << kernels->name;
  }
}

// A gate of every variant against activation(x) * up in double precision.
template <typename Member, typename Activation>
void check_gate(Member member, Activation activation, std::vector<float> gate, const std::vector<float>& up,
                bool bf16) {
  const float edges[] = {0.0f, -0.0f, 88.5f, -88.5f, 1e12f, -1e12f, INFINITY};
  std::copy_n(edges, std::min(gate.size(), std::size(edges)), gate.begin());
  std::vector<float> expected;
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> found = gate;
    (kernels->*member)(found.data(), up.data(), static_cast<std::int64_t>(gate.size()), bf16);
    if (expected.empty()) expected = found;
    expect_same(found, expected, kernels->name);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double value = activation(static_cast<double>(gate[i])) * static_cast<double>(up[i]);
      if (std::isinf(value))
        EXPECT_EQ(found[i], static_cast<float>(value)) << kernels->name << " " << gate[i];
      else  // where e^x leaves the range of f32, 1e-20 stands for less
        EXPECT_NEAR(found[i], value, std::fabs(value) * (bf16 ? 0x1p-7 : 0x1p-17) + 1e-20)
            << kernels->name << " " << gate[i];
    }
  }
}

TEST_P(Elementwise, SiluMul) {
  check_gate(
      &ElementwiseKernels::silu_mul, [](double x) { return x / (1 + std::exp(-x)); }, normal(count, 6, 20, bf16),
      normal(count, 7, 1, bf16), bf16);
}

TEST_P(Elementwise, GeluMul) {
  check_gate(
      &ElementwiseKernels::gelu_mul,
      [](double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); },
      normal(count, 6, 3, bf16), normal(count, 7, 1, bf16), bf16);
}

TEST_P(Elementwise, ClampedMul) {
  std::vector<float> gate = normal(count, 6, 5, bf16);
  const std::vector<float> up = normal(count, 7, 5, bf16);
  const float edges[] = {0.0f, -0.0f, 7.0f, 7.03125f, 1e12f, -1e12f, INFINITY};
  std::copy_n(edges, std::min(gate.size(), std::size(edges)), gate.begin());
  const auto round = [&](double x) { return static_cast<double>(formats::round_to(compute, static_cast<float>(x))); };
  std::vector<float> expected;
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> found = gate;
    kernels->clamped_mul(found.data(), up.data(), static_cast<std::int64_t>(count), bf16);
    if (expected.empty()) expected = found;
    expect_same(found, expected, kernels->name);
    for (std::size_t i = 0; i < count; ++i) {
      const double g = std::min(static_cast<double>(gate[i]), 7.0),
                   u = std::clamp(static_cast<double>(up[i]), -7.0, 7.0);
      const double value = round(u + 1) * round(g * round(1 / (1 + std::exp(-round(g * 1.702)))));
      // The sigmoid may fall on the other side of a rounding, and so may what comes of it.
      EXPECT_NEAR(found[i], value, std::fabs(value) * (bf16 ? 0x1p-6 : 0x1p-17) + 1e-20)
          << kernels->name << " " << gate[i];
    }
  }
}

TEST_P(Elementwise, NanStays) {
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> x(count, 1.0f);
    const std::vector<float> one(count, 1.0f);
    x.back() = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> sum = x;
    kernels->silu_mul(x.data(), one.data(), static_cast<std::int64_t>(count), bf16);
    EXPECT_TRUE(std::isnan(x.back())) << kernels->name;
    kernels->add(sum.data(), one.data(), static_cast<std::int64_t>(count), bf16);
    EXPECT_TRUE(std::isnan(sum.back())) << kernels->name;
    std::vector<float> gated = sum;
    kernels->clamped_mul(gated.data(), one.data(), static_cast<std::int64_t>(count), bf16);
    EXPECT_TRUE(std::isnan(gated.back())) << kernels->name;
  }
}

TEST_P(Elementwise, Add) {
  const std::vector<float> x = normal(count, 8, 1, bf16), y = normal(count, 9, 1, bf16);
  for (const ElementwiseKernels* kernels : variants()) {
    std::vector<float> found = x;
    kernels->add(found.data(), y.data(), static_cast<std::int64_t>(count), bf16);
    for (std::size_t i = 0; i < count; ++i)
      EXPECT_EQ(found[i], formats::round_to(compute, x[i] + y[i])) << kernels->name;
  }
}

TEST(Logits, BlocksHaveTheirMaximaAndSums) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (const std::int64_t count : {1, 15, 16, 255, 256, 257, 1000}) {
    std::vector<float> x = normal(at(count), 10, 5, false);
    if (count > 1) x[at(count / 2)] = -INFINITY;
    const float top = *std::max_element(x.begin(), x.end()), scale = 1.5f;
    const std::int64_t blocks = (count + kLogitBlock - 1) / kLogitBlock;
    for (const ElementwiseKernels* kernels : variants()) {
      std::vector<float> maxima(at(blocks)), sums(at(blocks)), first(at(blocks));
      kernels->block_maxima(x.data(), count, maxima.data());
      kernels->block_exp_sums(x.data(), count, top, scale, sums.data());
      kElementwisePortable.block_exp_sums(x.data(), count, top, scale, first.data());
      expect_same(sums, first, kernels->name);
      for (std::int64_t b = 0; b < blocks; ++b) {
        const auto begin = x.begin() + b * kLogitBlock, end = x.begin() + std::min(count, (b + 1) * kLogitBlock);
        EXPECT_EQ(maxima[at(b)], *std::max_element(begin, end)) << kernels->name << " " << count;
        double sum = 0;
        for (auto v = begin; v != end; ++v) sum += std::exp((static_cast<double>(*v) - static_cast<double>(top)) * 1.5);
        EXPECT_NEAR(sums[at(b)], sum, sum * 1e-5) << kernels->name << " " << count;
      }
      std::vector<float> spoilt = x;
      spoilt.back() = NAN;
      kernels->block_maxima(spoilt.data(), count, maxima.data());
      for (std::int64_t b = 0; b < blocks; ++b) EXPECT_EQ(std::isnan(maxima[at(b)]), b == blocks - 1) << kernels->name;
    }
  }
}

// What must never be chosen weighs nothing, however many there are.
TEST(Logits, ImpossibleOnesWeighNothing) {
  std::vector<float> x(1000, -INFINITY);
  x[7] = 3;
  std::vector<float> sums(4);
  for (const ElementwiseKernels* kernels : variants()) {
    kernels->block_exp_sums(x.data(), 1000, 3, 1, sums.data());
    EXPECT_EQ(sums, (std::vector<float>{1, 0, 0, 0})) << kernels->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Elementwise, testing::Combine(testing::Values(1, 7, 16, 33, 1000), testing::Bool()));

}  // namespace
}  // namespace lowp::kernels::cpu
