#include "lowp/report/layer_page.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lowp::report {
namespace {

TEST(LayerName, SplitsModules) {
  const auto expert = layer_name("model.layers.12.mlp.experts.7.up_proj");
  ASSERT_TRUE(expert);
  EXPECT_EQ(expert->layer, 12);
  EXPECT_EQ(expert->part, "mlp.experts.*.up_proj");
  EXPECT_EQ(layer_name("model.layers.0.self_attn.q_proj")->part, "self_attn.q_proj");
  for (const char* other : {"lm_head", "model.embed_tokens", "model.layers.x.q", "model.layers.3"})
    EXPECT_FALSE(layer_name(other)) << other;
}

TEST(Histogram, CountsByOrderOfMagnitude) {
  Histogram histogram;
  const std::vector<float> values = {0, 1, -1.5f, 2, 1e30f, 0.25f, 1e-30f, 1};
  histogram.add(values, 1);
  const std::vector<double> shares = histogram.shares(), bounds = Histogram::bounds();
  double sum = 0;
  for (const double share : shares) sum += share;
  EXPECT_DOUBLE_EQ(sum, 1);
  EXPECT_DOUBLE_EQ(bounds[Histogram::kZero], 1);
  EXPECT_DOUBLE_EQ(shares[Histogram::kZero], 3.0 / 8);
  EXPECT_DOUBLE_EQ(shares[Histogram::kZero + 1], 1.0 / 8);
  EXPECT_DOUBLE_EQ(shares[Histogram::kZero - 2], 1.0 / 8);
  EXPECT_DOUBLE_EQ(shares.front(), 2.0 / 8);
  EXPECT_DOUBLE_EQ(shares.back(), 1.0 / 8);
}

TEST(LayerMap, HasACellForEachLayerAndPart) {
  const std::string map = layer_map("SQNR", "dB",
                                    {{"model.layers.0.mlp.experts.0.up_proj", 20},
                                     {"model.layers.0.mlp.experts.1.up_proj", 30},
                                     {"model.layers.1.self_attn.q_proj", INFINITY},
                                     {"lm_head", 5}},
                                    10, 60);
  EXPECT_NE(map.find("mlp.experts.*.up_proj"), std::string::npos);
  EXPECT_NE(map.find("25"), std::string::npos) << "experts are averaged";
  EXPECT_EQ(map.find("nan"), std::string::npos);
  EXPECT_EQ(map.find("lm_head"), std::string::npos);
  EXPECT_EQ(layer_map("SQNR", "dB", {{"lm_head", 5}}, 10, 60), "");
}

}  // namespace
}  // namespace lowp::report
