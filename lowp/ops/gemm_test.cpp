// The packed products of every recipe, on every instruction level this machine runs, against sums in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "lowp/formats/recipes.h"
#include "lowp/kernels/cpu/gemm/pack.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/linear.h"

namespace lowp::ops {
namespace {

namespace cpu = kernels::cpu;
using formats::Elem;

std::vector<float> random_values(std::mt19937& rng, std::int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = formats::round_to(Elem::bf16, normal(rng));
  return values;
}

Tensor as_tensor(DType type, std::int64_t m, std::int64_t k, std::span<const float> values) {
  Tensor x(type, {m, k});
  store_rounded(x, 0, values);
  return x;
}

// One product: the weight as packed for a level, the activation as the level quantizes it, and what is expected.
struct Case {
  std::int64_t m, n, k;
};

struct Product {
  std::vector<float> y;  // [m, n]
  bool packed = false;
};

Product multiply(const cpu::GemmKernels& kernels, const QuantizedMatrix& weight, const formats::Recipe& recipe,
                 std::optional<float> calibrated, Elem compute, std::span<const float> x, std::int64_t m,
                 std::int64_t rows_at_a_time) {
  Product result;
  const auto packing = cpu::packing_for(weight.format, weight.k, recipe.activation, compute, kernels);
  if (!packing) return result;
  result.packed = true;
  const cpu::PackedMatrix packed = cpu::pack(weight, *packing);
  cpu::PackedRows rows;
  const formats::Activation* const activation = recipe.activation ? &*recipe.activation : nullptr;
  rows.fit(packed, activation, m, kernels.tiles);
  formats::GroupStats call;
  for (const float v : x) call.add(v);
  const cpu::RowsTask task(activation, compute, calibrated, call, &rows);
  std::vector<float> scratch_row(static_cast<std::size_t>(weight.k));
  kernels.quantize_rows(task, x.data(), 0, m, scratch_row.data());

  cpu::AlignedBytes scratch(static_cast<std::size_t>(cpu::kScratchBytes));
  std::vector<float> tile(static_cast<std::size_t>(m * cpu::kPanel));
  result.y.resize(static_cast<std::size_t>(m * weight.m));
  for (std::int64_t p = 0; p < packed.panels(); ++p)
    for (std::int64_t r = 0; r < m; r += rows_at_a_time) {
      const std::int64_t count = std::min(rows_at_a_time, m - r);
      kernels.panels(packed, p, 1, rows, r, count, nullptr, false, scratch.data(), tile.data());
      for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j < std::min(cpu::kPanel, weight.m - p * cpu::kPanel); ++j)
          result.y[static_cast<std::size_t>((r + i) * weight.m + p * cpu::kPanel + j)] = tile[i * cpu::kPanel + j];
    }
  return result;
}

class EveryRecipe : public testing::TestWithParam<std::string> {
 protected:
  // The recipe with its tolerance relative to the sum of |x w|: f32 sums of k terms, and where torchao rounds a
  // dequantized operand to bf16 that rounding.
  void check(const cpu::GemmKernels& kernels, const Case& shape, Elem compute) {
    const formats::Recipe recipe = formats::recipe(GetParam());
    const auto [m, n, k] = shape;
    if (!formats::misfit(recipe.weight, n, k).empty()) return;
    if (recipe.activation && !formats::misfit(recipe.activation->format, m, k).empty()) return;
    std::mt19937 rng(static_cast<unsigned>(m * 131 + n * 7 + k));
    const Tensor w = as_tensor(DType::bf16, n, k, random_values(rng, n * k, 0.05f));
    std::vector<float> table;
    if (recipe.weight.rule == formats::Rule::codebook)
      for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 4);
    const QuantizedMatrix weight = quantize(w.view(), recipe.weight, {}, table);
    const std::vector<float> x = random_values(rng, m * k, 1.0f);
    std::optional<float> calibrated;
    if (recipe.activation && recipe.activation->scope == formats::Scope::calibrated)
      calibrated = recipe.activation->format.tensor_scale
                       ? 4.0f / 2688.0f
                       : 4.0f / formats::max_value(recipe.activation->format.element);

    const Product whole = multiply(kernels, weight, recipe, calibrated, compute, x, m, m);
    if (!whole.packed) return;
    const Product alone = multiply(kernels, weight, recipe, calibrated, compute, x, m, 1);
    const Product uneven = multiply(kernels, weight, recipe, calibrated, compute, x, m, 5);
    EXPECT_EQ(whole.y, alone.y) << kernels.name << ": a row depends on its batch";
    EXPECT_EQ(whole.y, uneven.y) << kernels.name << ": a row depends on its batch";

    std::vector<float> grid = x;
    if (recipe.activation) fake_quantize(*recipe.activation, compute, calibrated, x, m, k, grid);
    const Tensor values = dequantize(weight, DType::f32);
    const bool rounded = recipe.activation && recipe.activation->format.scale_in_input_dtype;
    const double tolerance = static_cast<double>(k) * 0x1p-24 + (rounded ? 0x1p-8 : 0x1p-20);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;
        for (std::int64_t t = 0; t < k; ++t) {
          const double product = static_cast<double>(grid[i * k + t]) * values.as<float>()[j * k + t];
          sum += product;
          size += std::abs(product);
        }
        ASSERT_NEAR(whole.y[static_cast<std::size_t>(i * n + j)], sum, size * tolerance + 1e-6)
            << kernels.name << " [" << m << ", " << n << ", " << k << "] at " << i << ", " << j;
      }
  }
};

TEST_P(EveryRecipe, EveryLevelMultipliesExactOperands) {
  for (const cpu::Isa level : cpu::isa_levels()) {
    if (!cpu::runs(level)) {
      std::printf("[ SKIPPED  ] %s: this machine does not run it\n", std::string(cpu::name(level)).c_str());
      continue;
    }
    for (const Case& shape : {Case{1, 1, 32}, Case{1, 33, 256}, Case{9, 70, 288}, Case{3, 40, 2080}, Case{13, 32, 1},
                              Case{39, 5, 129}, Case{2, 31, 48}, Case{1, 64, 1152}})
      check(cpu::gemm_kernels(level), shape, Elem::bf16);
    check(cpu::gemm_kernels(level), {5, 35, 512}, Elem::f32);
    if (HasFatalFailure()) return;
  }
}

// The demo's recipes, one of each weight format, and the rest of the pairs that have a path of their own.
std::vector<std::string> recipes() {
  std::vector<std::string> names = formats::demo_recipe_names();
  for (const char* more : {"int8-int8_static", "int4_g32_asym-int8_asym", "nvfp4-int8", "nvfp4-int8_g32", "mxfp4-int8",
                           "mxfp4-int8_g32", "mxfp4-fp8", "nvfp4-nvfp4_static", "mxfp8_e5m2-bf16", "mxfp6_e3m2-bf16"})
    names.emplace_back(more);
  for (const formats::BlockRow& row : formats::block_rows())
    if (row.use != formats::Use::activation) names.push_back(formats::expand_pattern(row.pattern).front() + "-bf16");
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::erase(names, "bf16");  // PackedBf16 below
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, EveryRecipe, testing::ValuesIn(recipes()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(Packing, ServesEveryRecipe) {
  for (const std::string& name : formats::recipe_names()) {
    const formats::Recipe recipe = formats::recipe(name);
    if (recipe.keeps()) continue;
    for (const cpu::Isa level : {cpu::Isa::portable, cpu::Isa::avx512_bf16, cpu::Isa::amx})
      EXPECT_TRUE(cpu::packing_for(recipe.weight, 4096, recipe.activation, Elem::bf16, cpu::gemm_kernels(level)))
          << name;
  }
}

TEST(PackedBf16, MatchesDoubleSumsOnEveryLevel) {
  std::mt19937 rng(7);
  for (const cpu::Isa level : cpu::isa_levels()) {
    if (!cpu::runs(level)) continue;
    for (const auto& [m, n, k] : {Case{1, 1, 1}, Case{11, 45, 131}, Case{2, 64, 2112}}) {
      const std::vector<float> x = random_values(rng, m * k, 1), values = random_values(rng, n * k, 0.05f);
      const Tensor w = as_tensor(DType::bf16, n, k, values);
      const cpu::GemmKernels& kernels = cpu::gemm_kernels(level);
      const cpu::PackedMatrix packed = cpu::pack(w.view(), kernels.wide);
      cpu::PackedRows rows;
      rows.fit(packed, nullptr, m, kernels.tiles);
      kernels.quantize_rows(cpu::RowsTask(nullptr, Elem::bf16, {}, {}, &rows), x.data(), 0, m, nullptr);
      cpu::AlignedBytes scratch(static_cast<std::size_t>(cpu::kScratchBytes));
      std::vector<float> tile(static_cast<std::size_t>(m * cpu::kPanel));
      for (std::int64_t p = 0; p < packed.panels(); ++p) {
        kernels.panels(packed, p, 1, rows, 0, m, nullptr, false, scratch.data(), tile.data());
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = p * cpu::kPanel; j < std::min(n, (p + 1) * cpu::kPanel); ++j) {
            double sum = 0, size = 0;
            for (std::int64_t t = 0; t < k; ++t) {
              const double product = static_cast<double>(x[i * k + t]) * values[j * k + t];
              sum += product;
              size += std::abs(product);
            }
            ASSERT_NEAR(tile[i * cpu::kPanel + j - p * cpu::kPanel], sum, size * static_cast<double>(k + 16) * 0x1p-24)
                << kernels.name;
          }
      }
    }
  }
}

}  // namespace
}  // namespace lowp::ops
