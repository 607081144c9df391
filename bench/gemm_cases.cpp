#include "bench/gemm_cases.h"

#include <algorithm>
#include <memory>
#include <random>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cpu/gemm/pack.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/linear.h"

namespace lowp::bench {
namespace {

namespace cpu = kernels::cpu;
using formats::Elem;

constexpr std::int64_t kOutputs = 8192, kInputs = 2048;
constexpr std::int64_t kCpuRows[] = {1, 8, 32, 512};
constexpr std::int64_t kFewRows = 8;
constexpr std::size_t kBeyondCaches = std::size_t{640} << 20, kMostWeights = 64;

std::vector<float> values(std::int64_t count, float deviation) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> period((1 << 16) + 61), out(static_cast<std::size_t>(count));
  for (float& v : period) v = formats::round_to(Elem::bf16, normal(rng));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = period[i % period.size()];
  return out;
}

// A scale of Scope::calibrated that fits these activations.
std::optional<float> calibrated(const formats::Recipe& recipe) {
  if (!recipe.activation || recipe.activation->scope != formats::Scope::calibrated) return std::nullopt;
  const formats::BlockFormat& format = recipe.activation->format;
  return format.tensor_scale ? formats::nvfp4_tensor_scale(4.0f) : 4.0f / formats::max_value(format.element);
}

// `count` Linears with the same random weight, each with memory of its own.
std::vector<ops::Linear> linears(const formats::Recipe& recipe, std::int64_t n, std::int64_t k, std::size_t count) {
  Tensor w(DType::bf16, {n, k});
  store_rounded(w, 0, values(n * k, 0.02f));
  std::vector<float> table;
  if (recipe.weight.rule == formats::Rule::codebook)
    for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 8);
  QuantizedMatrix q;
  if (!recipe.keeps()) q = ops::quantize(w.view(), recipe.weight, {}, table);
  std::vector<ops::Linear> made;
  while (made.size() < count)
    if (recipe.keeps())
      made.emplace_back(w.view(), std::nullopt, Elem::bf16);
    else
      made.emplace_back(q, recipe, calibrated(recipe), std::nullopt, Elem::bf16);
  return made;
}

// The probe of the instruction that does a recipe's products; reading, where no instruction does them.
std::string peak(const formats::Recipe& recipe, std::int64_t k) {
  const cpu::Isa level = cpu::isa();
  const cpu::GemmKernels& kernels = cpu::gemm_kernels(level);
  cpu::Packing packing{.arithmetic = kernels.wide};
  if (!recipe.keeps())
    packing = cpu::packing_for(recipe.weight, k, recipe.activation, Elem::bf16, kernels).value_or(packing);
  const bool int8 = packing.arithmetic == cpu::Arithmetic::int8, wide = packing.arithmetic == cpu::Arithmetic::bf16;
  if (level == cpu::Isa::portable) return "read";
  if (level == cpu::Isa::amx && (wide || packing.block == 0)) return int8 ? "amx_int8" : "amx_bf16";
  if (level >= cpu::Isa::avx512) return int8 ? "vnni_avx512" : wide ? "bf16_avx512" : "fma_avx512";
  return int8 && level == cpu::Isa::avx2_vnni ? "vnni_avx2" : "fma_avx2";
}

}  // namespace

std::vector<Case> gemm_cases(const Selection& selection) {
  const std::int64_t n = selection.n.value_or(kOutputs), k = selection.k.value_or(kInputs);
  std::vector<std::int64_t> rows(std::begin(kCpuRows), std::end(kCpuRows));
  if (selection.m) rows = {*selection.m};
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? formats::demo_recipe_names() : selection.recipes) {
    const formats::Recipe recipe = formats::recipe(name);
    if (const std::string wrong = formats::misfit(recipe.weight, n, k); !wrong.empty())
      fail(ErrorCode::usage, "{}: {}", name, wrong);
    const std::uint64_t bytes = linears(recipe, n, k, 1)[0].memory();
    for (const std::int64_t m : rows) {
      const bool few = m <= kFewRows;
      cases.push_back({"gemm", recipe.name, m, n, k, bytes, static_cast<std::uint64_t>(2 * m * n * k),
                       few ? "read" : peak(recipe, k), [=] {
                         const auto weights = std::make_shared<std::vector<ops::Linear>>(linears(
                             recipe, n, k, few ? std::min<std::size_t>(kMostWeights, 1 + kBeyondCaches / bytes) : 1));
                         const auto x = std::make_shared<std::vector<float>>(values(m * k, 1.0f));
                         const auto y = std::make_shared<std::vector<float>>(static_cast<std::size_t>(m * n));
                         const auto input = std::make_shared<ops::Input>();
                         return [=, next = std::size_t{0}]() mutable {
                           const ops::Linear* const w = &(*weights)[next++ % weights->size()];
                           const std::span<float> out(*y);
                           w->prepare(*x, m, *input);
                           ops::run_all({&w, 1}, *input, {&out, 1});
                         };
                       }});
    }
  }
  return cases;
}

}  // namespace lowp::bench
