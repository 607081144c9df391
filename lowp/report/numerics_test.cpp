#include "lowp/report/numerics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace lowp::report {
namespace {

TEST(NumericsFormats, StandForAll) {
  const auto formats = numerics_formats();
  EXPECT_GE(formats.size(), 25u);
  EXPECT_LE(formats.size(), 50u);
  for (const char* name : {"nvfp4", "nvfp4_single", "mxfp4", "fp8", "int4_g32", "int8", "codebook4_g64"})
    EXPECT_EQ(std::count_if(formats.begin(), formats.end(), [&](const auto& f) { return f.name == name; }), 1) << name;
  for (const auto& format : formats) EXPECT_EQ(formats::misfit(format, kNumericsRows, kNumericsColumns), "");
}

TEST(NumericsTensor, DiffersByAnExactPowerOfTwo) {
  for (const Data data : {Data::normal, Data::heavy})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor one = numerics_tensor(data, dtype, 0), small = numerics_tensor(data, dtype, -24);
      float amax = 0;
      for (std::int64_t i = 0; i < kNumericsRows * kNumericsColumns; ++i) {
        amax = std::max(amax, std::abs(load_one(one.view(), i)));
        ASSERT_EQ(load_one(small.view(), i), std::ldexp(load_one(one.view(), i), -24));
      }
      EXPECT_EQ(amax, 1.0f);
    }
}

TEST(MeasureNumerics, TwoLevelsKeepWhatOneLoses) {
  double last = 0;
  const NumericsReport report = measure_numerics({"cpu", 1, "date", "0"}, [&](double share) { last = share; });
  EXPECT_NEAR(last, 1, 1e-9);
  EXPECT_EQ(report.panels.size(), 4u);
  EXPECT_EQ(report.exponents.front(), -24);
  EXPECT_EQ(report.exponents.back(), 12);
  const auto row = [&](const char* name) {
    for (std::size_t f = 0; f < report.formats.size(); ++f)
      if (report.formats[f].name == name) return report.panels[0].sqnr[f];
    return std::vector<double>();
  };
  const auto two = row("nvfp4"), one = row("nvfp4_single");
  EXPECT_NEAR(two.front(), two.back(), 0.01);
  EXPECT_LT(one.front(), 1);  // blocks below the smallest scale become zero
  EXPECT_GT(two.front(), 18);
  EXPECT_EQ(to_json(report)["rows"].size(), 4 * report.formats.size());
  EXPECT_EQ(grids(report)[0].rows.size(), report.formats.size());
}

}  // namespace
}  // namespace lowp::report
