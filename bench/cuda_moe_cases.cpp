#include "bench/cuda_moe_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "bench/cuda_device.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/experts_cuda.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;
using formats::Recipe;

struct Model {
  const char* op;
  std::int64_t experts, top, hidden, width;
};
constexpr Model kModels[] = {{"moe:qwen3-30b-a3b", 128, 8, 2048, 768}, {"moe:mixtral-8x7b", 8, 2, 4096, 14336}};
constexpr std::int64_t kTokens[] = {1, 8, 64, 1024, 8192};
constexpr const char* kRecipes[] = {"bf16", "fp8-bf16", "mxfp4-bf16", "fp8-fp8", "mxfp4-fp8"};
constexpr std::int64_t kFew = 64;
constexpr int kExpertCalls = 32;

Tensor normal(std::int64_t rows, std::int64_t columns, float deviation, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> value(0, deviation);
  std::vector<std::uint16_t> period((1 << 16) + 61);
  for (auto& v : period) v = static_cast<std::uint16_t>(float_bits(formats::round_to(Elem::bf16, value(rng))) >> 16);
  Tensor x(DType::bf16, {rows, columns});
  auto* to = x.as<std::uint16_t>();
  for (std::int64_t at = 0; at < rows * columns; at += static_cast<std::int64_t>(period.size()))
    std::memcpy(to + at, period.data(),
                static_cast<std::size_t>(
                    std::min<std::int64_t>(static_cast<std::int64_t>(period.size()), rows * columns - at)) *
                    2);
  return x;
}

// Experts that are all as the first, but each in memory of its own.
ops::CudaExperts experts(const Model& model, const Recipe& recipe) {
  const ops::Device device{0};
  const auto linear = [&](const char* name, std::int64_t n, std::int64_t k, bool is_router) {
    ops::LinearWeight made;
    made.holder = normal(n, k, 0.02f, 1);
    made.weight = made.holder.view();
    if (is_router || recipe.keeps()) return made;
    ops::CastOptions options;
    options.device = device;
    made.weight = ops::quantize(made.holder.view(), recipe.weight, options);
    made.recipe = recipe;
    made.equal_to = name;
    return made;
  };
  ops::LinearWeight gate = linear("gate", model.width, model.hidden, false),
                    up = linear("up", model.width, model.hidden, false),
                    down = linear("down", model.hidden, model.width, false);
  gate.equal_to = "gate", up.equal_to = "up", down.equal_to = "down";
  const auto all = static_cast<std::size_t>(model.experts);
  const std::vector<std::vector<const ops::LinearWeight*>> gate_up(all, {&gate, &up}), downs(all, {&down});
  return {linear("router", model.experts, model.hidden, true),
          ops::CudaExpertStack(gate_up, device),
          ops::CudaExpertStack(downs, device),
          {.top = model.top},
          device};
}

void measure_moe(const Model& model, const Recipe& recipe, Row& row, Device& device, const Effort& effort) {
  const bool few = row.m <= kFew;
  const int calls = few ? kExpertCalls : 1;
  const ops::CudaExperts made = experts(model, recipe);
  const Tensor values = normal(calls * row.m, model.hidden, 1, 2);
  const std::vector<float> ones(static_cast<std::size_t>(model.hidden), 1.0f);
  const cuda::Memory stream = cuda::uploaded(values.bytes()), weight = cuda::uploaded(std::as_bytes(std::span(ones))),
                     x(static_cast<std::size_t>(row.m * model.hidden) * 2), out(x.size()),
                     workspace(made.workspace(row.m));
  const CudaCall call = [&](std::size_t i) {
    const cuda::AddNormTask norm{
        .stream = stream.as<std::uint16_t>() +
                  static_cast<std::int64_t>(i % static_cast<std::size_t>(calls)) * row.m * model.hidden,
        .weight = weight.as<float>(),
        .out = x.as<>(),
        .rows = row.m,
        .width = model.hidden};
    made.run({.rows = row.m, .x = x.as<>(), .norm = &norm, .out = out.as<>(), .workspace = workspace.as<>()},
             cuda_stream().handle());
  };
  if (few)
    row.samples = graph_samples(call, kExpertCalls, std::min(9, effort.most));
  else
    row.samples = {sustained([&] { call(0); }), sustained([&] { call(0); })};
  row.seconds = median(row.samples);
  std::vector<double> limits(5);
  for (double& limit : limits) limit = device.probe(row.limit_name);
  row.limit = median(limits);
}

std::string operands_of(const Recipe& recipe) {
  if (!recipe.activation) return "bf16_product";
  const Elem w = recipe.weight.element, a = recipe.activation->format.element;
  if (w == Elem::int8 && a == Elem::int8) return "int8_product";
  return a == Elem::e4m3 && (w == Elem::e4m3 || w == Elem::e2m1) ? "e4m3_product" : "bf16_product";
}

}  // namespace

std::vector<Case> cuda_moe_cases(const Selection& selection) {
  std::vector<Case> made;
  const std::vector<std::string> names = selection.recipes.empty()
                                             ? std::vector<std::string>(std::begin(kRecipes), std::end(kRecipes))
                                             : selection.recipes;
  const std::vector<std::int64_t> rows =
      selection.m ? std::vector{*selection.m} : std::vector<std::int64_t>(std::begin(kTokens), std::end(kTokens));
  for (const std::string& name : names) {
    const Recipe recipe = formats::recipe(name);
    for (const Model& model : kModels) {
      if (selection.n.value_or(model.width) != model.width || selection.k.value_or(model.hidden) != model.hidden)
        continue;
      const double expert = 3 * static_cast<double>(model.hidden) * static_cast<double>(model.width),
                   bits = recipe.keeps()
                              ? 16
                              : formats::bits_per_weight(recipe.weight, model.width, model.hidden, Elem::bf16);
      for (const std::int64_t m : rows) {
        const double all = static_cast<double>(model.experts), chosen = static_cast<double>(model.top),
                     active = all * (1 - std::pow(1 - chosen / all, static_cast<double>(m)));
        made.push_back({model.op,
                        recipe.name,
                        m,
                        model.width,
                        model.hidden,
                        static_cast<std::uint64_t>(active * expert * bits / 8) +
                            static_cast<std::uint64_t>(2 * model.experts * model.hidden),
                        static_cast<std::uint64_t>(2 * static_cast<double>(m) * chosen * expert),
                        m <= kFew ? "read" : operands_of(recipe),
                        {},
                        [&model, recipe](Row& row, Device& device, const Effort& effort) {
                          measure_moe(model, recipe, row, device, effort);
                        }});
      }
    }
  }
  return made;
}

}  // namespace lowp::bench
