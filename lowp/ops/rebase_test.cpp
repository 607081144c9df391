// Weights as e4m3 with one power of two a row; needs no GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/gemm_rebase.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;

// Groups of 32 over `octaves` octaves; the last row is zero.
QuantizedMatrix weight(const char* format, std::int64_t n, std::int64_t k, int octaves) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = i < static_cast<std::size_t>((n - 1) * k)
               ? normal(rng) * std::ldexp(1.0f, -static_cast<int>(i / 32) % (octaves + 1))
               : 0.0f;
  Tensor x(DType::bf16, {n, k});
  store_rounded(x, 0, v);
  return quantize(x.view(), formats::block_format(format), {});
}

struct Compared {
  double largest_off = 0;   // in units of the row's scale
  double largest_with = 0;  // the largest value that is off, in units of the row's largest
  double lost = 0;          // RebasedWeight::lost, by its definition
};

Compared compare(const QuantizedMatrix& q, const cuda::RebasedWeight& rebased) {
  const Tensor exact = dequantize(q, DType::f32);
  Compared found;
  for (std::int64_t row = 0; row < q.m; ++row) {
    const double scale = rebased.scale[static_cast<std::size_t>(row)];
    double largest = 0, norm = 0, off_norm = 0;
    for (std::int64_t c = 0; c < q.k; ++c)
      largest = std::max<double>(largest, std::abs(load_one(exact.view(), row * q.k + c)));
    if (largest == 0) continue;
    EXPECT_GT(largest / scale, 224);
    EXPECT_LE(largest / scale, 448);
    for (std::int64_t c = 0; c < q.k; ++c) {
      const double value = load_one(exact.view(), row * q.k + c),
                   code = formats::decode(Elem::e4m3, rebased.codes[static_cast<std::size_t>(row * q.k + c)]),
                   off = std::abs(code - value / scale);
      norm += value / scale * (value / scale);
      off_norm += off * off;
      found.largest_off = std::max(found.largest_off, off);
      if (off > 0) found.largest_with = std::max(found.largest_with, std::abs(value) / largest);
      if (c % 128 == 127 || c + 1 == q.k) {
        if (norm > 0) found.lost = std::max(found.lost, std::sqrt(off_norm / norm));
        norm = off_norm = 0;
      }
    }
  }
  return found;
}

TEST(Rebase, LosesWhatItSays) {
  std::string why;
  for (const char* format : {"mxfp8", "mxfp6", "mxfp6_e3m2", "mxfp4"})
    for (const int octaves : {0, 4, 20}) {
      const QuantizedMatrix q = weight(format, 9, 1120, octaves);
      const auto rebased = cuda::rebase_weight(q, &why);
      ASSERT_TRUE(rebased) << why;
      const Compared found = compare(q, *rebased);
      EXPECT_LE(found.largest_off, 0x1p-10) << format << " over " << octaves;
      EXPECT_LE(found.largest_with, 0x1p-13) << format << " over " << octaves;
      EXPECT_DOUBLE_EQ(found.lost, rebased->lost) << format << " over " << octaves;
      if (octaves < 5) EXPECT_LE(rebased->lost, cuda::kMostLost) << format << " over " << octaves;
      if (octaves == 20) EXPECT_GT(rebased->lost, cuda::kMostLost) << format;
      if (octaves < 5 && q.format.element != Elem::e4m3) EXPECT_EQ(rebased->lost, 0) << format << " over " << octaves;
    }
}

TEST(Rebase, RoundsNvfp4) {
  std::string why;
  for (const char* format : {"nvfp4", "nvfp4_single"}) {
    const QuantizedMatrix q = weight(format, 9, 1120, 2);
    const auto rebased = cuda::rebase_weight(q, &why);
    ASSERT_TRUE(rebased) << why;
    const Compared found = compare(q, *rebased);
    EXPECT_LE(found.largest_off, 16 * (1 + 0x1p-20)) << format;  // half a step below 448, and the scale is rounded
    EXPECT_GT(rebased->lost, 0x1p-8) << format;
    EXPECT_LT(rebased->lost, 0x1p-4) << format;
  }
}

TEST(Rebase, SaysWhatItCannotHold) {
  std::string why;
  QuantizedMatrix q = weight("mxfp8", 9, 256, 0);
  q.scale.bytes()[3] = std::byte{255};
  EXPECT_FALSE(cuda::rebase_weight(q, &why));
  EXPECT_EQ(why, "a scale that is not a number");
  q.scale.bytes()[3] = std::byte{254};
  EXPECT_FALSE(cuda::rebase_weight(q, &why));
  EXPECT_EQ(why, "a row whose power of two is beyond f32");
  EXPECT_FALSE(cuda::rebases(formats::block_format("mxfp8_e5m2")));
}

}  // namespace
}  // namespace lowp::ops
