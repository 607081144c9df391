// Products held back and launched together against the same Linears one by one: the same bytes.
#include "lowp/ops/products_cuda.h"

#include <algorithm>

#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;

class CudaProductsTest : public CudaTest, public testing::WithParamInterface<const char*> {
 protected:
  LinearWeight weight(const char* name, std::int64_t n, std::int64_t k) {
    const formats::Recipe recipe = formats::recipe(name);
    LinearWeight made{.weight = TensorView{}};
    made.holder = Tensor(DType::bf16, {n, k});
    const Bf16Values values = random(n * k, 0.05f);
    std::memcpy(made.holder.bytes().data(), values.data(), made.holder.bytes().size());
    made.weight = made.holder.view();
    if (recipe.keeps()) return made;
    made.weight = quantize(made.holder.view(), recipe.weight, {});
    made.recipe = recipe;
    return made;
  }
  CudaLinear linear(const char* name, std::int64_t n, std::int64_t k) {
    const LinearWeight one = weight(name, n, k);
    return std::move(*CudaLinear::stacked({&one, 1}, gpu));
  }
  const Device gpu{0};
};

// What a decoder's chain leaves: output, sum and norm with gate and up, down, sum and norm with the next block's input.
struct Results {
  std::uint16_t *out, *sum, *gated, *down, *next_sum, *in;
};

TEST_P(CudaProductsTest, TheBytesOfOneByOne) {
  const std::int64_t heads = 768, hidden = 1024, width = 2304, inputs = 1160;
  const std::vector<float> factors(static_cast<std::size_t>(hidden), 1.25f);
  const float* const factor = upload(factors);
  const char* const name = GetParam();
  const LinearWeight gate_up[] = {weight(name, width, hidden), weight(name, width, hidden)};
  const CudaLinear out = linear(name, hidden, heads), both = std::move(*CudaLinear::gated(gate_up, gpu)),
                   down = linear(name, hidden, width), in = linear(name, inputs, hidden),
                   // of other codes: it breaks the row of products
      other = linear("int4_g64-bf16", hidden, width);
  for (const std::int64_t m : {1, 2})
    for (const bool breaks : {false, true}) {
      const std::uint16_t *x = upload(random(m * heads)), *stream_in = upload(random(m * hidden, 3));
      const std::size_t bytes = std::max({out.workspace(m), both.workspace(m), down.workspace(m), in.workspace(m)});
      auto* const workspace = room<std::uint8_t>(static_cast<std::int64_t>(bytes));
      const auto results = [&] {
        return Results{room<std::uint16_t>(m * hidden), room<std::uint16_t>(m * hidden),
                       room<std::uint16_t>(m * width),  room<std::uint16_t>(m * hidden),
                       room<std::uint16_t>(m * hidden), room<std::uint16_t>(m * inputs)};
      };
      auto* const normed = room<std::uint16_t>(m * hidden);
      auto* const ungated = room<std::uint16_t>(2 * m * width);
      // `run` and `run_gated` do what CudaLinear's do.
      const auto enqueue = [&](const Results& to, const auto& run, const auto& run_gated) {
        const auto norm = [&](const void* from, const void* add, void* sum) {
          return cuda::AddNormTask{
              .stream = from, .add = add, .sum = sum, .weight = factor, .out = normed, .rows = m, .width = hidden};
        };
        run(out, CudaLinearTask{.m = m, .x = x, .y = to.out, .workspace = workspace});
        const auto first = norm(stream_in, to.out, to.sum);
        run_gated(CudaLinearTask{.m = m, .x = normed, .norm = &first, .y = to.gated, .workspace = workspace});
        run(breaks ? other : down, CudaLinearTask{.m = m, .x = to.gated, .y = to.down, .workspace = workspace});
        const auto second = norm(to.sum, to.down, to.next_sum);
        run(in, CudaLinearTask{.m = m, .x = normed, .norm = &second, .y = to.in, .workspace = workspace});
      };
      const Results expected = results();
      enqueue(
          expected, [&](const CudaLinear& linear, const CudaLinearTask& task) { linear.run(task, handle()); },
          [&](const CudaLinearTask& task) {
            ASSERT_FALSE(both.run_gated(task, kernels::GateActivation::silu, ungated, handle()));
          });
      CudaProducts products(handle(), width);
      std::vector<Results> found(20);
      for (Results& one : found) one = results();
      for (const Results& to : found)
        enqueue(
            to, [&](const CudaLinear& linear, const CudaLinearTask& task) { products.run(linear, task); },
            [&](const CudaLinearTask& task) {
              ASSERT_FALSE(products.run_gated(both, task, kernels::GateActivation::silu, ungated));
            });
      ASSERT_EQ(products.stream(), handle());
      for (const Results& one : found) {
        const std::string what = fmt::format("{}, {} rows", in.plan(m), m);
        EXPECT_EQ(download(one.out, m * hidden), download(expected.out, m * hidden)) << what;
        EXPECT_EQ(download(one.sum, m * hidden), download(expected.sum, m * hidden)) << what;
        EXPECT_EQ(download(one.gated, m * width), download(expected.gated, m * width)) << what;
        EXPECT_EQ(download(one.down, m * hidden), download(expected.down, m * hidden)) << what;
        EXPECT_EQ(download(one.next_sum, m * hidden), download(expected.next_sum, m * hidden)) << what;
        ASSERT_EQ(download(one.in, m * inputs), download(expected.in, m * inputs)) << what;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, CudaProductsTest,
                         testing::Values("bf16", "fp8-bf16", "int8-bf16", "mxfp8-bf16", "mxfp4-bf16", "nvfp4-bf16",
                                         "int4_g32-bf16", "int4_g128-bf16", "fp8-fp8", "fp8_tensor-fp8_tensor",
                                         "int8-int8", "mxfp4-fp8", "mxfp8-mxfp8"),
                         [](const auto& recipe) {
                           std::string name = recipe.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lowp::ops
