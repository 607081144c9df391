// Algorithms beyond the plain cast, on matrices where what they promise can be computed directly.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lowp/base/error.h"
#include "lowp/quant/gptq.h"
#include "lowp/quant/method.h"
#include "lowp/quant/mse_search.h"
#include "lowp/quant/rewrite.h"

namespace lowp::quant {
namespace {

constexpr std::int64_t kRows = 24, kColumns = 256;

Tensor weight() {
  std::mt19937 random(1);
  std::student_t_distribution<float> heavy(4);
  std::vector<float> values(static_cast<std::size_t>(kRows * kColumns));
  for (float& value : values) value = heavy(random) / 16;
  Tensor x(DType::bf16, {kRows, kColumns});
  store_rounded(x, 0, values);
  return x;
}

// Inputs whose columns are correlated and of different size: [rows, kColumns].
std::vector<float> inputs(std::int64_t rows) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(rows * kColumns));
  for (std::int64_t r = 0; r < rows; ++r) {
    float before = 0;
    for (std::int64_t c = 0; c < kColumns; ++c) {
      before = 0.9f * before + 0.4f * normal(random);
      x[r * kColumns + c] = before * (c % 16 == 0 ? 8.0f : 1.0f);
    }
  }
  return x;
}

std::vector<float> values_of(const TensorView& x) {
  std::vector<float> values(static_cast<std::size_t>(element_count(x.shape)));
  load_f32(x, 0, element_count(x.shape), values.data());
  return values;
}

// Squared error of the weight, and of its products with x.
double weight_error(const Tensor& w, const QuantizedMatrix& q) {
  const std::vector<float> a = values_of(w.view()), b = values_of(ops::dequantize(q, DType::f32).view());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
  return sum;
}

double output_error(const Tensor& w, const QuantizedMatrix& q, const std::vector<float>& x) {
  const std::vector<float> a = values_of(w.view()), b = values_of(ops::dequantize(q, DType::f32).view());
  double sum = 0;
  for (std::size_t r = 0; r < x.size() / kColumns; ++r)
    for (std::size_t n = 0; n < kRows; ++n) {
      double y = 0;
      for (std::size_t c = 0; c < kColumns; ++c)
        y += static_cast<double>(x[r * kColumns + c]) * static_cast<double>(a[n * kColumns + c] - b[n * kColumns + c]);
      sum += y * y;
    }
  return sum;
}

const char* const kSearched[] = {"int4_g32", "int4_g128_asym", "int8_channel", "int4_g64_float", "mxfp4", "nvfp4",
                                 "mxfp8",    "q4_k",           "q6_k",         "q8_0",           "fp8"};

TEST(MseSearch, NeverWorseThanTheFormatsOwnRule) {
  const Tensor w = weight();
  for (const char* word : kSearched) {
    const formats::BlockFormat format = formats::block_format(word);
    const double plain = weight_error(w, quantize(w.view(), format, Algorithm::absmax, {}));
    const double searched = weight_error(w, quantize(w.view(), format, Algorithm::mse, {}));
    // Groups of a super-block are searched before they are put on its grid, so that is no more than likely there.
    EXPECT_LE(searched, plain * (format.super_cols > 0 ? 1.02 : 1.0)) << word;
    if (word == std::string("int4_g32") || word == std::string("mxfp4")) EXPECT_LT(searched, 0.95 * plain) << word;
  }
}

TEST(MseSearch, WeighsErrors) {
  const Tensor w = weight();
  const formats::BlockFormat format = formats::block_format("int4_g128");
  std::vector<float> importance(kColumns, 1e-3f);
  importance[5] = 1;
  const auto error = [&](const QuantizedMatrix& q) {
    const std::vector<float> a = values_of(w.view()), b = values_of(ops::dequantize(q, DType::f32).view());
    double sum = 0;
    for (std::size_t i = 5; i < a.size(); i += kColumns) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
    return sum;
  };
  EXPECT_LT(error(mse_search(w.view(), format, importance, {})), 0.5 * error(mse_search(w.view(), format, {}, {})));
}

TEST(Gptq, LowersTheErrorOfProducts) {
  const Tensor w = weight();
  const std::vector<float> x = inputs(600), held_out = inputs(700);
  ops::InputStats stats;
  stats.add(std::span(x).first(200 * kColumns), kColumns, true);
  stats.add(std::span(x).subspan(200 * kColumns), kColumns, true);
  for (const char* word : {"int4_g32", "int4_g128_asym", "int3_channel", "mxfp4", "nvfp4", "q4_k"}) {
    const formats::BlockFormat format = formats::block_format(word);
    const double plain = output_error(w, quantize(w.view(), format, Algorithm::absmax, {}), held_out);
    const double rounded = output_error(w, quantize(w.view(), format, Algorithm::gptq, {}, &stats), held_out);
    EXPECT_LT(rounded, 0.5 * plain) << word;
  }
  EXPECT_THROW(quantize(w.view(), formats::block_format("int4_g32"), Algorithm::gptq, {}), Error);
}

TEST(Gptq, InputsThatAreAlwaysZero) {
  const Tensor w = weight();
  ops::InputStats stats;
  stats.add(std::vector<float>(kColumns), kColumns, true);
  const formats::BlockFormat format = formats::block_format("int4_g32");
  EXPECT_LE(weight_error(w, quantize(w.view(), format, Algorithm::gptq, {}, &stats)),
            weight_error(w, quantize(w.view(), format, Algorithm::absmax, {})));
}

TEST(InputStats, AreSums) {
  const std::vector<float> x = inputs(70);
  ops::InputStats stats;
  stats.add(x, kColumns, true);
  double sum = 0, square = 0;
  float largest = 0;
  for (std::size_t r = 0; r < 70; ++r) {
    sum += static_cast<double>(x[r * kColumns + 3]) * static_cast<double>(x[r * kColumns + 200]);
    square += std::pow(static_cast<double>(x[r * kColumns + 3]), 2);
    largest = std::max(largest, std::fabs(x[r * kColumns + 3]));
  }
  EXPECT_NEAR(stats.gram[3 * kColumns + 200], sum, 1e-3);
  EXPECT_EQ(stats.gram[3 * kColumns + 200], stats.gram[200 * kColumns + 3]);
  EXPECT_NEAR(stats.mean_square()[3], square / 70, 1e-6);
  EXPECT_EQ(stats.amax[3], largest);
}

TEST(Rotate, IsOrthogonalAndSpreadsOutliers) {
  std::vector<float> a(64), b(64);
  a[5] = 3;
  b[40] = -2;
  rotate(a, 64);
  rotate(b, 64);
  double aa = 0, ab = 0;
  float largest = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    aa += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    ab += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    largest = std::max(largest, std::fabs(a[i]));
  }
  EXPECT_NEAR(aa, 9, 1e-5);
  EXPECT_NEAR(ab, 0, 1e-5);
  EXPECT_NEAR(largest, 3.0 / 8, 1e-6);
}

TEST(Method, Words) {
  EXPECT_EQ(find_method({}).algorithm, Algorithm::absmax);
  EXPECT_EQ(find_method({"awq"}).preparation, Preparation::awq);
  EXPECT_EQ(find_method({"awq"}).algorithm, Algorithm::mse);
  EXPECT_EQ(find_method({"gptq", "hadamard"}).algorithm, Algorithm::gptq);
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{{"gtpq"}, {"mse", "gptq"}, {"awq", "hadamard"}})
    EXPECT_THROW(find_method(wrong), Error);
}

}  // namespace
}  // namespace lowp::quant
