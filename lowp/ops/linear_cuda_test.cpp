// Products on the GPU against sums in double of the same operands.
#include "lowp/ops/linear_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/gemm_cublas.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/linear.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;

class CudaLinearTest : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << cuda::why_none() << ")";
    cuda::use_device(0);
  }
  const Device gpu{0};

  static Tensor random(std::int64_t rows, std::int64_t columns, float deviation, unsigned seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> v(static_cast<std::size_t>(rows * columns));
    for (float& value : v) value = normal(rng);
    Tensor x(DType::bf16, {rows, columns});
    store_rounded(x, 0, v);
    return x;
  }

  static std::vector<float> values(const Tensor& x) {
    std::vector<float> v(static_cast<std::size_t>(element_count(x.shape())));
    load_f32(x.view(), 0, static_cast<std::int64_t>(v.size()), v.data());
    return v;
  }

  // y [m, n], every byte poisoned before.
  static Tensor run(const CudaLinear& linear, const Tensor& x) {
    const std::int64_t m = x.shape()[0];
    const cuda::Stream stream;
    cuda::Memory on_device(x.bytes().size()), workspace(linear.workspace(m));
    Tensor y(DType::bf16, {m, linear.n()});
    cuda::Memory out(y.bytes().size());
    cuda::copy(on_device.as<>(), x.bytes().data(), x.bytes().size(), stream.handle());
    cuda::fill(out.as<>(), 0xFF, out.size(), stream.handle());
    linear.run(on_device.as<>(), m, out.as<>(), workspace.as<>(), stream.handle());
    cuda::copy(y.bytes().data(), out.as<>(), out.size(), stream.handle());
    stream.synchronize();
    return y;
  }

  // Compares y with sums in double. Each of K / 16 steps of the tensor cores may lose `epsilon` of the largest sum so
  // far, which is at most the sum of magnitudes; the result is rounded to bf16.
  static void expect_close(const Tensor& y, const std::vector<float>& x, const std::vector<float>& w,
                           const std::vector<float>& bias, std::int64_t k, double epsilon, const std::string& what) {
    const std::int64_t m = y.shape()[0], n = y.shape()[1];
    int wrong = 0;
    for (std::int64_t i = 0; i < m && wrong < 3; ++i)
      for (std::int64_t j = 0; j < n && wrong < 3; ++j) {
        double sum = bias[static_cast<std::size_t>(j)], magnitude = std::abs(sum);
        for (std::int64_t c = 0; c < k; ++c) {
          const double product =
              static_cast<double>(x[static_cast<std::size_t>(i * k + c)]) * w[static_cast<std::size_t>(j * k + c)];
          sum += product;
          magnitude += std::abs(product);
        }
        const double bound =
            std::abs(sum) * 0x1p-8 + magnitude * epsilon * static_cast<double>(ceil_div<std::int64_t>(k, 16));
        const float found = load_one(y.view(), i * n + j);
        if (!(std::abs(found - sum) <= bound)) {
          ++wrong;
          ADD_FAILURE() << what << " [" << i << ", " << j << "]: " << found << " instead of " << sum << " within "
                        << bound;
        }
      }
  }

  // How far sums may be off, by the operands' type.
  static double epsilon(const CudaLinear& linear, std::int64_t m) {
    return linear.plan(m).find("codes x ") != std::string::npos ? 0x1p-13 : 0x1p-22;
  }
};

// One of each kernel: gemv for one and several rows, wide tiles of 16, 64, 128 and 256, dense tiles.
constexpr std::int64_t kRows[] = {1, 3, 8, 13, 50, 100, 129, 300};

TEST_F(CudaLinearTest, EveryRecipe) {
  const std::int64_t n = 200, k = 896;
  const Tensor w = random(n, k, 0.05f, 1), b = random(1, n, 1, 2);
  const std::vector<float> bias = values(b);
  std::vector<std::string> names = formats::demo_recipe_names();
  for (const char* more : {"mxfp4-fp8", "fp8_tensor-fp8_static", "int8-int8_static", "int4_g128-fp8_static",
                           "nvfp4-fp8_static", "mxfp4-fp8_static", "nvfp4-nvfp4_static"})
    names.emplace_back(more);
  for (const std::string& name : names) {
    const formats::Recipe recipe = formats::recipe(name);
    if (recipe.keeps()) continue;
    std::vector<float> table;
    if (recipe.weight.rule == formats::Rule::codebook)
      for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 8);
    if (!formats::misfit(recipe.weight, n, k).empty()) continue;
    const QuantizedMatrix q = quantize(w.view(), recipe.weight, {}, table);
    // Of the largest values some saturate.
    std::optional<float> calibrated;
    if (recipe.activation && recipe.activation->scope == formats::Scope::calibrated)
      calibrated =
          2.5f /
          (recipe.activation->format.tensor_scale ? 2688.0f : formats::max_value(recipe.activation->format.element));
    const CudaLinear linear(q, recipe, b.view(), gpu, calibrated);
    // Integers times scales are rounded to bf16, as torchao's dequantize does.
    const bool rounded = !formats::info(recipe.weight.element).is_float() && recipe.weight.group_cols != 0;
    for (const std::int64_t m : kRows) {
      const Tensor x = random(m, k, 1, 4);
      const bool dense = linear.plan(m).find("codes x codes") != std::string::npos;
      std::vector<float> grid = values(x);
      if (recipe.activation) {
        const std::vector<float> plain = grid;
        fake_quantize(*recipe.activation, Elem::bf16, calibrated, plain, m, k, grid);
        if (linear.plan(m).find("rounded to bf16") != std::string::npos)
          for (float& v : grid) v = formats::round_to(Elem::bf16, v);
      }
      const bool at_load = linear.plan(m).find("dequantized") != std::string::npos;
      const std::vector<float> weight =
          values(dequantize(q, !dense && (rounded || at_load) ? DType::bf16 : DType::f32));
      const Tensor y = run(linear, x);
      expect_close(y, grid, weight, bias, k, epsilon(linear, m), linear.plan(m));
      EXPECT_EQ(std::memcmp(y.bytes().data(), run(linear, x).bytes().data(), y.bytes().size()), 0) << linear.plan(m);
    }
  }
}

TEST_F(CudaLinearTest, Bf16OfManyShapes) {
  for (const auto& [n, k] : {std::pair<std::int64_t, std::int64_t>{8, 16}, {136, 208}, {2120, 1040}}) {
    const Tensor w = random(n, k, 0.05f, 1);
    const CudaLinear linear(w.view(), std::nullopt, gpu);
    for (const std::int64_t m : {1, 2, 9, 33, 130}) {
      const Tensor x = random(m, k, 1, static_cast<unsigned>(m));
      expect_close(run(linear, x), values(x), values(w), std::vector<float>(static_cast<std::size_t>(n)), k, 0x1p-22,
                   linear.plan(m));
    }
  }
}

// Small integers: every sum is exact, whatever the order.
TEST_F(CudaLinearTest, ExactWhereSumsFit) {
  std::mt19937 rng(9);
  const std::int64_t n = 264, k = 1024, m = 270;
  // The largest value makes every scale 1, and meets a 0 of the other side.
  const auto integers = [&](std::int64_t rows, std::int64_t largest, std::int64_t zero) {
    std::vector<float> v(static_cast<std::size_t>(rows * k));
    for (float& value : v) value = static_cast<float>(static_cast<int>(rng() % 3) - 1);
    for (std::int64_t r = 0; r < rows; ++r) {
      v[static_cast<std::size_t>(r * k + largest)] = 448;
      v[static_cast<std::size_t>(r * k + zero)] = 0;
    }
    Tensor x(DType::bf16, {rows, k});
    store_rounded(x, 0, v);
    return x;
  };
  const Tensor w = integers(n, 0, 1), x = integers(m, 1, 0);
  const std::vector<float> a = values(x), b = values(w);
  const formats::Recipe recipe = formats::recipe("fp8-fp8");
  CudaLinear linear(quantize(w.view(), recipe.weight, {}), recipe, std::nullopt, gpu);
  for (const cuda::Sums sums : {cuda::Sums::fast, cuda::Sums::promoted}) {
    linear.use_sums(sums);
    const Tensor y = run(linear, x);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        float sum = 0;
        for (std::int64_t c = 0; c < k; ++c)
          sum += a[static_cast<std::size_t>(i * k + c)] * b[static_cast<std::size_t>(j * k + c)];
        ASSERT_EQ(load_one(y.view(), i * n + j), formats::round_to(Elem::bf16, sum));
      }
  }
}

TEST_F(CudaLinearTest, RowsDoNotDependOnTheBatch) {
  const std::int64_t n = 512, k = 1024;
  const formats::Recipe recipe = formats::recipe("int4_g128-bf16");
  const CudaLinear linear(quantize(random(n, k, 0.05f, 1).view(), recipe.weight, {}), recipe, std::nullopt, gpu);
  const Tensor x = random(300, k, 1, 5);
  const auto first = [&](std::int64_t m) {
    Tensor part(DType::bf16, {m, k});
    std::memcpy(part.bytes().data(), x.bytes().data(), part.bytes().size());
    return run(linear, part);
  };
  for (const auto& [few, many] :
       {std::pair<std::int64_t, std::int64_t>{1, 8}, {9, 16}, {17, 64}, {65, 128}, {130, 300}}) {
    const Tensor a = first(few), b = first(many);
    EXPECT_EQ(std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()), 0) << few << " of " << many;
  }
}

// A norm in front, a gate behind and both, by eights or not: the bytes of the kernels one after the other.
TEST_F(CudaLinearTest, WhatSurroundsProducts) {
  const std::int64_t width = 384, last = 200;
  const cuda::Stream stream;
  const auto device = [&](const Tensor& x) { return cuda::uploaded(x.bytes()); };
  const auto host = [&](const cuda::Memory& from, std::int64_t rows, std::int64_t columns) {
    Tensor to(DType::bf16, {rows, columns});
    cuda::copy(to.bytes().data(), from.as<>(), to.bytes().size(), stream.handle());
    stream.synchronize();
    return to;
  };
  const auto expect_equal = [](const Tensor& a, const Tensor& b, const std::string& what) {
    EXPECT_EQ(std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()), 0) << what;
  };
  for (const char* name : {"bf16", "fp8-bf16", "int4_g128-bf16", "nvfp4-bf16", "fp8-fp8", "fp8_tensor-fp8_tensor",
                           "int8-int8", "mxfp8-mxfp8", "mxfp4-fp8", "mxfp4-mxfp8", "mxfp6-mxfp6"})
    for (const std::int64_t k : {640, 5120}) {
      const formats::Recipe recipe = formats::recipe(name);
      std::vector<LinearWeight> parts;
      for (const unsigned seed : {1u, 2u}) {
        LinearWeight& part = parts.emplace_back(LinearWeight{.weight = TensorView{}});
        part.holder = random(width, k, 0.05f, seed);
        if (recipe.keeps()) {
          part.weight = part.holder.view();
        } else {
          part.weight = quantize(part.holder.view(), recipe.weight, {});
          part.recipe = recipe;
        }
      }
      LinearWeight back;
      back.holder = random(last, width, 0.05f, 6);
      back.weight = back.holder.view();
      if (!recipe.keeps()) {
        back.weight = quantize(back.holder.view(), recipe.weight, {});
        back.recipe = recipe;
      }
      const auto down = CudaLinear::stacked({&back, 1}, gpu);
      const auto separate = CudaLinear::stacked(std::span(parts).first(1), gpu),
                 other = CudaLinear::stacked(std::span(parts).last(1), gpu), gated = CudaLinear::gated(parts, gpu);
      ASSERT_TRUE(separate && other && gated && down) << name;
      const std::vector<float> factors = values(random(1, k, 1, 3));
      const cuda::Memory factor = cuda::uploaded(std::as_bytes(std::span(factors)));
      for (const std::int64_t m : kRows)
        for (const auto activation :
             {kernels::GateActivation::silu, kernels::GateActivation::gelu_tanh, kernels::GateActivation::clamped}) {
          const std::string what = fmt::format("{} rows, {}", m, gated->plan(m));
          const auto room = [&](std::int64_t columns) {
            return cuda::Memory(static_cast<std::size_t>(m * columns) * 2);
          };
          const cuda::Memory x = device(random(m, k, 3, 4)), add = device(random(m, k, 1, 5)), sum = room(k),
                             other_sum = room(k), normed = room(k), unused = room(k), gate = room(width),
                             up = room(width), expected = room(width), found = room(width), ungated = room(2 * width),
                             workspace(std::max(gated->workspace(m), down->workspace(m))), y = room(last),
                             expected_y = room(last);
          const auto norm = [&](const cuda::Memory& to, const cuda::Memory& out) {
            return cuda::AddNormTask{.stream = x.as<>(),
                                     .add = add.as<>(),
                                     .sum = to.as<>(),
                                     .weight = factor.as<float>(),
                                     .out = out.as<>(),
                                     .rows = m,
                                     .width = k};
          };
          cuda::add_norm(norm(sum, normed), stream.handle());
          separate->run(normed.as<>(), m, gate.as<>(), workspace.as<>(), stream.handle());
          other->run(normed.as<>(), m, up.as<>(), workspace.as<>(), stream.handle());
          cuda::GateTask gate_task{.gate = gate.as<>(),
                                   .up = up.as<>(),
                                   .gate_stride = width,
                                   .up_stride = width,
                                   .activation = activation,
                                   .out = expected.as<>(),
                                   .rows = m,
                                   .width = width};
          cuda::gate_mul(gate_task, stream.handle());
          down->run(expected.as<>(), m, expected_y.as<>(), workspace.as<>(), stream.handle());
          gate_task.out = unused.as<>();
          down->run({.m = m, .x = unused.as<>(), .gate = &gate_task, .y = y.as<>(), .workspace = workspace.as<>()},
                    stream.handle());
          expect_equal(host(y, m, last), host(expected_y, m, last), fmt::format("a gate, {}", down->plan(m)));
          const cuda::AddNormTask fused = norm(other_sum, unused);
          const auto gate_left = gated->run_gated(
              {.m = m, .x = unused.as<>(), .norm = &fused, .y = found.as<>(), .workspace = workspace.as<>()},
              activation, ungated.as<>(), stream.handle());
          if (gate_left) cuda::gate_mul(*gate_left, stream.handle());
          expect_equal(host(found, m, width), host(expected, m, width), what);
          expect_equal(host(other_sum, m, k), host(sum, m, k), "the sum of " + what);
          separate->run({.m = m, .x = unused.as<>(), .norm = &fused, .y = found.as<>(), .workspace = workspace.as<>()},
                        stream.handle());
          expect_equal(host(found, m, width), host(gate, m, width), "without a gate, " + what);
        }
    }
}

// Under a weight that is the identity, results are the codes of the activations times the scales.
TEST_F(CudaLinearTest, CastsInProductsHaveTheCodesOfCasts) {
  const std::int64_t k = 1040;
  Tensor identity(DType::bf16, {k, k});
  std::vector<float> ones(static_cast<std::size_t>(k * k));
  for (std::int64_t i = 0; i < k; ++i) ones[static_cast<std::size_t>(i * k + i)] = 1;
  store_rounded(identity, 0, ones);
  for (const char* name : {"fp8-fp8", "fp8_tensor-fp8", "fp8_tensor-fp8_tensor", "int8-int8"})
    for (const std::int64_t m : {1, 2, 7, 8}) {
      const formats::Recipe recipe = formats::recipe(name);
      const QuantizedMatrix w = quantize(identity.view(), recipe.weight, {});
      const CudaLinear linear(w, recipe, std::nullopt, gpu);
      Tensor x = random(m, k, 5, static_cast<unsigned>(m));
      if (m > 2) std::memset(x.bytes().data() + 2 * k, 0, static_cast<std::size_t>(2 * k));  // a row of zeros
      formats::BlockFormat format = recipe.activation->format;
      const QuantizedMatrix q = quantize(x.view(), format, {});
      const Tensor y = run(linear, x);
      const auto one = static_cast<std::uint8_t>(w.codes.bytes()[0]);
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < k; ++j) {
          const auto code = static_cast<std::uint8_t>(q.codes.bytes()[static_cast<std::size_t>(i * k + j)]);
          const float row_scale = w.scale.as<float>()[w.format.group_rows == 0 ? 0 : j],
                      x_scale = q.scale.as<float>()[format.group_rows == 0 ? 0 : i],
                      sum = formats::decode(format.element, code) * formats::decode(format.element, one);
          ASSERT_EQ(load_one(y.view(), i * k + j), formats::round_to(Elem::bf16, sum * row_scale * x_scale))
              << name << " of " << m << " at " << i << ", " << j;
        }
    }
}

// With one order of sums: of every kernel, and with K in parts.
TEST_F(CudaLinearTest, RowsDoNotDependOnTheirNumber) {
  const std::int64_t n = 520, k = 3072;
  const Tensor w = random(n, k, 0.05f, 1), x = random(300, k, 1, 5);
  for (const char* name : {"bf16", "int4_g128-bf16", "mxfp8-bf16", "nvfp4-nvfp4", "fp8-fp8", "int8-int8", "mxfp4-fp8",
                           "mxfp8-mxfp8", "mxfp4-mxfp8"}) {
    const formats::Recipe recipe = formats::recipe(name);
    CudaLinear linear = recipe.keeps() ? CudaLinear(w.view(), std::nullopt, gpu)
                                       : CudaLinear(quantize(w.view(), recipe.weight, {}), recipe, std::nullopt, gpu);
    linear.keep_order();
    const Tensor all = run(linear, x);
    for (const std::int64_t m : kRows) {
      Tensor part(DType::bf16, {m, k});
      std::memcpy(part.bytes().data(), x.bytes().data(), part.bytes().size());
      const Tensor y = run(linear, part);
      EXPECT_EQ(std::memcmp(y.bytes().data(), all.bytes().data(), y.bytes().size()), 0) << linear.plan(m);
    }
  }
}

TEST_F(CudaLinearTest, Graphs) {
  const formats::Recipe recipe = formats::recipe("mxfp4-bf16");
  const CudaLinear linear(quantize(random(256, 512, 0.05f, 1).view(), recipe.weight, {}), recipe, std::nullopt, gpu);
  const Tensor x = random(4, 512, 1, 5), expected = run(linear, x);
  const cuda::Stream stream;
  cuda::Memory in(x.bytes().size()), out(expected.bytes().size());
  cuda::copy(in.as<>(), x.bytes().data(), in.size(), stream.handle());
  cuda::Graph graph;
  graph.record(stream, [&] {
    for (int i = 0; i < 5; ++i) linear.run(in.as<>(), 4, out.as<>(), nullptr, stream.handle());
  });
  graph.launch(stream);
  Tensor y(DType::bf16, {4, 256});
  cuda::copy(y.bytes().data(), out.as<>(), out.size(), stream.handle());
  stream.synchronize();
  EXPECT_EQ(std::memcmp(y.bytes().data(), expected.bytes().data(), out.size()), 0);
}

// Blocks of 128 rows go to experts in any order; a block without one stays as it was.
TEST_F(CudaLinearTest, GroupedProducts) {
  const std::int64_t n = 200, k = 640, experts = 3, m = 128 * 5 + 40;
  const std::vector<std::int32_t> of_block = {2, 0, -1, 2, 1, 0};
  const formats::BlockFormat format = formats::block_format("fp8");
  const QuantizedMatrix x = quantize(random(m, k, 1, 1).view(), format, {}),
                        w = quantize(random(experts * n, k, 0.05f, 2).view(), format, {});
  const cuda::Stream stream;
  const auto upload = [&](std::span<const std::byte> bytes) {
    cuda::Memory memory(bytes.size());
    cuda::copy(memory.as<>(), bytes.data(), bytes.size(), stream.handle());
    return memory;
  };
  const cuda::Memory a = upload(x.codes.bytes()), b = upload(w.codes.bytes()), a_scale = upload(x.scale.bytes()),
                     b_scale = upload(w.scale.bytes()), blocks = upload(std::as_bytes(std::span(of_block)));
  Tensor y(DType::bf16, {m, n});
  cuda::Memory out(y.bytes().size());
  const std::vector<float> rows = values(dequantize(x, DType::f32)), weights = values(dequantize(w, DType::f32));
  for (const cuda::Sums sums : {cuda::Sums::fast, cuda::Sums::promoted}) {
    cuda::GroupedProduct p;
    p.m = m, p.n = n, p.k = k, p.sums = sums;
    p.a = a.as<>(), p.b = b.as<>(), p.a_scale = a_scale.as<float>(), p.b_scale = b_scale.as<float>(), p.y = out.as<>();
    p.experts = experts, p.expert_of_block = blocks.as<std::int32_t>();
    cuda::fill(out.as<>(), 0x7F, out.size(), stream.handle());
    cuda::grouped_product(p, stream.handle());
    cuda::copy(y.bytes().data(), out.as<>(), out.size(), stream.handle());
    stream.synchronize();
    for (std::size_t block = 0; block < of_block.size(); ++block) {
      const std::int64_t first = static_cast<std::int64_t>(block) * 128, count = std::min<std::int64_t>(128, m - first);
      Tensor part(DType::bf16, {count, n});
      std::memcpy(part.bytes().data(), y.bytes().data() + first * n * 2, part.bytes().size());
      if (of_block[block] < 0) {
        for (const std::byte byte : part.bytes()) ASSERT_EQ(byte, std::byte{0x7F});
        continue;
      }
      const auto slice = [&](const std::vector<float>& v, std::int64_t from, std::int64_t size) {
        return std::vector<float>(v.begin() + from * k, v.begin() + (from + size) * k);
      };
      expect_close(part, slice(rows, first, count), slice(weights, of_block[block] * n, n),
                   std::vector<float>(static_cast<std::size_t>(n)), k, 0x1p-13, "block " + std::to_string(block));
    }
  }
}

TEST_F(CudaLinearTest, CublasAgrees) {
  if (!cuda::why_no_cublas().empty()) GTEST_SKIP() << "skipped: " << cuda::why_no_cublas();
  const std::int64_t m = 144, n = 272, k = 512;
  const Tensor x = random(m, k, 1, 1), w = random(n, k, 0.05f, 2);
  const cuda::Stream stream;
  cuda::Memory a(x.bytes().size()), b(w.bytes().size()), workspace(cuda::CublasProduct::workspace_bytes());
  Tensor y(DType::bf16, {m, n});
  cuda::Memory out(y.bytes().size());
  cuda::copy(a.as<>(), x.bytes().data(), a.size(), stream.handle());
  cuda::copy(b.as<>(), w.bytes().data(), b.size(), stream.handle());
  const cuda::CublasProduct product({.m = m, .n = n, .k = k});
  product.run(a.as<>(), b.as<>(), nullptr, nullptr, out.as<>(), workspace.as<>(), stream.handle());
  cuda::copy(y.bytes().data(), out.as<>(), out.size(), stream.handle());
  stream.synchronize();
  expect_close(y, values(x), values(w), std::vector<float>(static_cast<std::size_t>(n)), k, 0x1p-22, "cuBLASLt");
}

TEST_F(CudaLinearTest, RefusesShapes) {
  EXPECT_THROW(CudaLinear(random(12, 64, 1, 1).view(), std::nullopt, gpu), Error);
  EXPECT_THROW(CudaLinear(random(16, 40, 1, 1).view(), std::nullopt, gpu), Error);
}

}  // namespace
}  // namespace lowp::ops
