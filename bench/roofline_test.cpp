#include "bench/roofline.h"

#include <gtest/gtest.h>

#include <fstream>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "tests/temp_dir.h"

namespace lowp::bench {
namespace {

std::vector<double> speedups(const std::string& device, const std::string& recipe) {
  std::vector<double> found;
  for (const LayerShape& shape : layer_shapes("pow2"))
    found.push_back(expected(peaks(device), formats::recipe(recipe), shape, true).speedup());
  return found;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& published) {
  ASSERT_EQ(found.size(), published.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], published[i], 0.005 + 1e-9) << i;
}

// Cubes of 1024 to 16384: torchao's model.
TEST(Roofline, SpeedupsOfTorchao) {
  expect_near(speedups("b200", "mxfp8-mxfp8"), {1.00, 1.76, 1.89, 1.94, 1.97});
  expect_near(speedups("b200", "nvfp4-nvfp4_tensor"), {1.00, 2.36, 2.89, 3.32, 3.62});
  expect_near(speedups("b200", "nvfp4-nvfp4_static"), {1.00, 2.74, 3.42, 3.67, 3.82});
  expect_near(speedups("h100", "fp8-fp8"), {1.21, 1.77, 1.86, 1.93, 1.96});
  expect_near(speedups("h100", "fp8_tensor-fp8_tensor"), {0.81, 1.45, 1.64, 1.79, 1.89});
}

TEST(Roofline, LaunchesBoundSmallLayers) {
  const Expected e = expected(peaks("b200"), formats::recipe("mxfp8-mxfp8"), {16, 64, 64}, true);
  EXPECT_DOUBLE_EQ(e.gemm, 2e-6);
  EXPECT_DOUBLE_EQ(e.cast, 2e-6);
}

TEST(Roofline, WithoutFp4ProductsRunInBf16) {
  const LayerShape cube{8192, 8192, 8192};
  const Expected e = expected(peaks("h100"), formats::recipe("nvfp4-nvfp4_tensor"), cube, true);
  EXPECT_DOUBLE_EQ(e.gemm, e.bf16_gemm);
}

TEST(Roofline, WeightOnlyDecodeIsBoundByBytes) {
  const Expected e = expected(peaks("h100"), formats::recipe("int4_g128-bf16"), {1, 8192, 8192}, false);
  EXPECT_NEAR(e.speedup(), 4, 0.1);
  EXPECT_EQ(e.cast, 0);
}

TEST(Roofline, FilesOfPeaks) {
  const TempDir dir;
  const std::string path = dir.path() + "/peaks.json";
  std::ofstream(path) << R"({"bf16": 1e12, "bytes": 1e11})";
  EXPECT_EQ(peaks(path).gemm_share, 1);
  std::ofstream(path) << R"({"bf16": -1, "bytes": 1e11})";
  EXPECT_THROW(peaks(path), Error);
  std::ofstream(path) << R"({"bf16": 1e12})";
  EXPECT_THROW(peaks(path), Error);
  EXPECT_THROW(peaks(dir.path() + "/none.json"), Error);
  EXPECT_THROW(peaks("b300x"), Error);
}

TEST(Roofline, RowsHaveTorchaosColumns) {
  const LayerShape shape{1024, 2048, 512};
  RooflineRow row{"mxfp8-mxfp8", shape, expected(peaks("b200"), formats::recipe("mxfp8-mxfp8"), shape, true), {}};
  EXPECT_EQ(to_json(row).at("b_fp8_gemm_s"), -1);
  row.observed = Observed{4e-6, 2e-6, 6e-6, 3e-6};
  EXPECT_EQ(to_json(row).at("b_fp8_e2e_spdp"), 2.0);
  EXPECT_EQ(to_json(row).size(), 17u);
}

TEST(Roofline, PagesStandAlone) {
  std::vector<RooflineRow> rows;
  for (const LayerShape& shape : layer_shapes("pow2"))
    rows.push_back({"mxfp8-mxfp8", shape, expected(peaks("b200"), formats::recipe("mxfp8-mxfp8"), shape, true), {}});
  const std::string page = roofline_page(peaks("b200"), rows);
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find("16384 x 16384 x 16384"), std::string::npos);
}

}  // namespace
}  // namespace lowp::bench
