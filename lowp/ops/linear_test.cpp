#include "lowp/ops/linear.h"

#include <gtest/gtest.h>

#include <random>

#include "lowp/formats/recipes.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

using formats::Elem;

std::vector<float> random_values(std::mt19937& rng, std::int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = formats::round_to(Elem::bf16, normal(rng));
  return values;
}

Linear random_linear(std::mt19937& rng, const std::string& recipe, std::int64_t n, std::int64_t k, bool bias) {
  Tensor w(DType::bf16, {n, k}), b(DType::bf16, {n});
  store_rounded(w, 0, random_values(rng, n * k, 0.05f));
  store_rounded(b, 0, random_values(rng, n, 1));
  const std::optional<TensorView> bias_view = bias ? std::optional(b.view()) : std::nullopt;
  const formats::Recipe r = formats::recipe(recipe);
  if (r.keeps()) return {w.view(), bias_view, Elem::bf16};
  return {quantize(w.view(), r.weight, {}), r, std::nullopt, bias_view, Elem::bf16};
}

class Recipes : public testing::TestWithParam<const char*> {};

TEST_P(Recipes, SideBySideAndTileByTileGiveWhatRunGives) {
  std::mt19937 rng(3);
  const std::int64_t k = 256, rows = 7;
  const Linear q = random_linear(rng, GetParam(), 96, k, true), v = random_linear(rng, GetParam(), 33, k, true);
  const Linear up = random_linear(rng, GetParam(), 33, k, false);
  ASSERT_TRUE(q.shares_input(v));
  const std::vector<float> x = random_values(rng, rows * k, 1);
  std::vector<float> q_alone(rows * 96), v_alone(rows * 33), up_alone(rows * 33);
  q.run(x, rows, q_alone);
  v.run(x, rows, v_alone);
  up.run(x, rows, up_alone);

  Input input;
  q.prepare(x, rows, input);
  std::vector<float> q_beside(q_alone.size()), v_beside(v_alone.size());
  const Linear* both[] = {&q, &v};
  const std::span<float> outputs[] = {q_beside, v_beside};
  run_all(both, input, outputs);
  EXPECT_EQ(q_beside, q_alone);
  EXPECT_EQ(v_beside, v_alone);

  std::vector<float> products(v_alone.size()), expected(v_alone.size());
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = v_alone[i] * up_alone[i];
  const Linear* pair[] = {&v, &up};
  // Beside them a product with another input: the first row.
  Input first;
  q.prepare([&](std::int64_t row, float* values) { std::copy_n(&x[row * q.k()], q.k(), values); }, 1, first);
  const Linear* single[] = {&q};
  std::vector<float> q_first(static_cast<std::size_t>(q.n()));
  const Product two[] = {{pair, &input}, {single, &first}};
  run_tiles(two, [&](std::size_t product, std::span<const OutputTile> tiles) {
    for (std::int64_t r = 0; r < tiles[0].rows; ++r)
      for (std::int64_t c = 0; c < tiles[0].columns; ++c)
        if (product == 0)
          products[static_cast<std::size_t>(tiles[0].place(r, 33) + c)] = tiles[0].row_at(r)[c] * tiles[1].row_at(r)[c];
        else
          q_first[static_cast<std::size_t>(tiles[0].place(r, q.n()) + c)] = tiles[0].row_at(r)[c];
  });
  EXPECT_EQ(products, expected);
  EXPECT_TRUE(std::equal(q_first.begin(), q_first.end(), q_alone.begin()));
}

TEST_P(Recipes, ABatchGivesEachRowWhatItGetsAlone) {
  std::mt19937 rng(4);
  const std::int64_t n = 40, k = 512, rows = 700;  // more rows than a tile has
  const Linear linear = random_linear(rng, GetParam(), n, k, false);
  const std::vector<float> x = random_values(rng, rows * k, 1);
  std::vector<float> batch(rows * n), alone(n);
  linear.run(x, rows, batch);
  for (const std::int64_t r : {0, 1, 511, 512, 699}) {
    linear.run(std::span(x).subspan(static_cast<std::size_t>(r * k), static_cast<std::size_t>(k)), 1, alone);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), batch.begin() + r * n)) << r;
  }
}

TEST_P(Recipes, NoRowsIsNoWork) {
  std::mt19937 rng(5);
  const Linear linear = random_linear(rng, GetParam(), 3, 64, true);
  linear.run({}, 0, {});
}

INSTANTIATE_TEST_SUITE_P(Some, Recipes,
                         testing::Values("bf16", "int8-int8", "int4_g32-bf16", "mxfp4-mxfp4", "int4_g32-int8_asym",
                                         "mxfp8-mxfp8", "int8-bf16", "fp8-fp8"));

TEST(Linear, PackedWeightsTakeTheirBitsOfMemory) {
  std::mt19937 rng(6);
  const auto bits = [&](const char* recipe) {
    return static_cast<double>(random_linear(rng, recipe, 512, 1024, false).memory()) * 8 / (512 * 1024);
  };
  EXPECT_LT(bits("bf16"), 16.2);
  EXPECT_LT(bits("int8-int8"), 8.2);
  EXPECT_LT(bits("int4_g32-bf16"), 4.7);
  EXPECT_LT(bits("mxfp4-bf16"), 4.4);
  EXPECT_LT(bits("int3_g64-bf16"), 3.4);
}

TEST(Linear, OtherWidthsAndDtypesAreDecoded) {
  std::mt19937 rng(8);
  for (const char* recipe : {"int4_g8-bf16", "int4_g48-bf16", "int8_channel_asym-bf16"}) {
    const std::int64_t k = 144, n = 5, rows = 2;  // 144 = 3 * 48, and no multiple of 32
    const formats::Recipe r = formats::recipe(recipe);
    Tensor w(DType::bf16, {n, k});
    store_rounded(w, 0, random_values(rng, n * k, 0.05f));
    const QuantizedMatrix q = quantize(w.view(), r.weight, {});
    const std::vector<float> x = random_values(rng, rows * k, 1);
    std::vector<float> y(rows * n), values(n * k);
    Linear(q, r, std::nullopt, std::nullopt, Elem::f32).run(x, rows, y);
    load_f32(dequantize(q, DType::f32).view(), 0, n * k, values.data());
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t t = 0; t < k; ++t) sum += static_cast<double>(x[i * k + t]) * values[j * k + t];
        EXPECT_NEAR(y[static_cast<std::size_t>(i * n + j)], sum, 1e-4) << recipe;
      }
  }
}

}  // namespace
}  // namespace lowp::ops
