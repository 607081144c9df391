// Experts on the GPU against each expert's rows through Linears of its own.
#include "lowp/ops/experts_cuda.h"

#include <algorithm>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/cuda_testing.h"
#include "lowp/ops/linear_cuda.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;

struct Shape {
  std::int64_t experts, top, hidden, width;
  kernels::GateActivation gate = kernels::GateActivation::silu;
};

class CudaExpertsTest : public CudaTest {
 protected:
  // What rows choose, from scores.
  struct Chosen {
    std::vector<std::vector<std::pair<int, float>>> of_row;  // experts ascending, with their weights
  };

  LinearWeight weight(std::int64_t n, std::int64_t k, const formats::Recipe& recipe, bool bias) {
    LinearWeight made;
    made.holder = Tensor(DType::bf16, {n, k});
    const Bf16Values values = random(n * k, 0.05f);
    std::memcpy(made.holder.bytes().data(), values.data(), values.size() * 2);
    made.weight = made.holder.view();
    if (!recipe.keeps()) {
      made.weight = quantize(made.holder.view(), recipe.weight, {});
      made.recipe = recipe;
    }
    if (bias) {
      const auto& b = biases.emplace_back(random(n, 0.5f));
      made.bias = TensorView{DType::bf16, {n}, std::as_bytes(std::span(b))};
    }
    return made;
  }

  struct Experts {
    LinearWeight router;  // whose scores are the row's first values
    std::vector<LinearWeight> gate, up, down;

    CudaExperts on_device(const Shape& shape) const {
      std::vector<std::vector<const LinearWeight*>> gate_up, downs;
      for (std::size_t e = 0; e < gate.size(); ++e) {
        gate_up.push_back({&gate[e], &up[e]});
        downs.push_back({&down[e]});
      }
      return {router,
              CudaExpertStack(gate_up, Device{0}),
              CudaExpertStack(downs, Device{0}),
              {.top = shape.top, .gate = shape.gate},
              Device{0}};
    }
  };
  Experts experts(const Shape& shape, const formats::Recipe& recipe, bool bias = false) {
    Experts made;
    made.router.holder = Tensor(DType::bf16, {shape.experts, shape.hidden});
    for (std::int64_t e = 0; e < shape.experts; ++e)
      made.router.holder.as<std::uint16_t>()[e * shape.hidden + e] = to_bf16(1);
    made.router.weight = made.router.holder.view();
    for (std::int64_t e = 0; e < shape.experts; ++e) {
      made.gate.push_back(weight(shape.width, shape.hidden, recipe, bias));
      made.up.push_back(weight(shape.width, shape.hidden, recipe, bias));
      made.down.push_back(weight(shape.hidden, shape.width, recipe, bias));
    }
    return made;
  }

  // Rows that begin with their scores: multiples of 1/4, so that there are ties, and nobody chooses the last expert.
  Bf16Values rows_of(const Shape& shape, std::int64_t rows, bool all_alike = false) {
    Bf16Values made = random(rows * shape.hidden);
    std::uniform_int_distribution<int> steps(-12, 12);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t e = 0; e < shape.experts; ++e)
        made[static_cast<std::size_t>(r * shape.hidden + e)] =
            to_bf16(e + 1 == shape.experts ? -8.0f
                    : all_alike            ? static_cast<float>(e % 5)
                                           : 0.25f * static_cast<float>(steps(rng)));
    return made;
  }

  static Chosen choose(const Shape& shape, const Bf16Values& x, const std::vector<std::int32_t>& positions) {
    Chosen made;
    for (std::size_t r = 0; r < positions.size(); ++r) {
      auto& own = made.of_row.emplace_back();
      if (positions[r] < 0) continue;
      const auto score = [&](int e) {
        return from_bf16(x[r * static_cast<std::size_t>(shape.hidden) + static_cast<std::size_t>(e)]);
      };
      std::vector<int> order(static_cast<std::size_t>(shape.experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return score(a) > score(b); });
      order.resize(static_cast<std::size_t>(shape.top));
      double kept = 0;
      for (const int e : order) kept += std::exp(score(e) - score(order[0]));
      std::sort(order.begin(), order.end());
      float largest = -1e30f;
      for (const int e : order) largest = std::max(largest, score(e));
      for (const int e : order) own.push_back({e, static_cast<float>(std::exp(score(e) - largest) / kept)});
    }
    return made;
  }

  Bf16Values run_linear(const CudaLinear& linear, const Bf16Values& x, std::int64_t rows) {
    auto* y = room<std::uint16_t>(rows * linear.n());
    auto* workspace = room<std::byte>(static_cast<std::int64_t>(linear.workspace(rows)) + 16);
    linear.run(upload(x), rows, y, workspace, handle());
    return download(y, rows * linear.n());
  }

  std::vector<float> reference(const Shape& shape, const Experts& experts, const Chosen& chosen, const Bf16Values& x) {
    const auto hidden = static_cast<std::size_t>(shape.hidden);
    std::vector<float> out(chosen.of_row.size() * hidden);
    for (std::size_t e = 0; e < experts.gate.size(); ++e) {
      std::vector<std::pair<std::size_t, float>> visits;
      for (std::size_t r = 0; r < chosen.of_row.size(); ++r)
        for (const auto& [expert, weight] : chosen.of_row[r])
          if (expert == static_cast<int>(e)) visits.emplace_back(r, weight);
      if (visits.empty()) continue;
      const auto rows = static_cast<std::int64_t>(visits.size());
      Bf16Values visitors;
      for (const auto& [row, weight] : visits)
        visitors.insert(visitors.end(), x.begin() + static_cast<std::ptrdiff_t>(row * hidden),
                        x.begin() + static_cast<std::ptrdiff_t>((row + 1) * hidden));
      const auto linear = [&](const LinearWeight& w) { return *CudaLinear::stacked({&w, 1}, Device{0}); };
      const Bf16Values gate = run_linear(linear(experts.gate[e]), visitors, rows),
                       up = run_linear(linear(experts.up[e]), visitors, rows);
      auto* gated = room<std::uint16_t>(rows * shape.width);
      cuda::gate_mul({.gate = upload(gate),
                      .up = upload(up),
                      .gate_stride = shape.width,
                      .up_stride = shape.width,
                      .activation = shape.gate,
                      .out = gated,
                      .rows = rows,
                      .width = shape.width},
                     handle());
      const Bf16Values down = run_linear(linear(experts.down[e]), download(gated, rows * shape.width), rows);
      for (std::size_t i = 0; i < visits.size(); ++i)
        for (std::size_t j = 0; j < hidden; ++j)
          out[visits[i].first * hidden + j] += from_bf16(down[i * hidden + j]) * visits[i].second;
    }
    return out;
  }

  Bf16Values run(const CudaExperts& experts, const Shape& shape, const std::vector<std::int32_t>& positions,
                 const Bf16Values& x, bool recorded = false) {
    const auto rows = static_cast<std::int64_t>(positions.size());
    auto* out = room<std::uint16_t>(rows * shape.hidden);
    auto* workspace = room<std::byte>(static_cast<std::int64_t>(experts.workspace(rows)));
    const CudaExperts::Task task{
        .rows = rows, .positions = upload(positions), .x = upload(x), .out = out, .workspace = workspace};
    if (recorded) {
      cuda::Graph graph;
      graph.record(*stream, [&] {
        for (int i = 0; i < 3; ++i) experts.run(task, handle());
      });
      graph.launch(*stream);
      graph.launch(*stream);
      stream->synchronize();
    } else {
      experts.run(task, handle());
    }
    return download(out, rows * shape.hidden);
  }

  // Relative to the root mean square of what was expected.
  static double error(const Bf16Values& found, const std::vector<float>& expected) {
    double sum = 0, all = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double off = static_cast<double>(from_bf16(found[i])) - static_cast<double>(expected[i]);
      sum += off * off;
      all += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    }
    return std::sqrt(sum / std::max(all, 1e-30));
  }

  static std::vector<std::int32_t> positions(std::int64_t rows) {
    std::vector<std::int32_t> made(static_cast<std::size_t>(rows));
    for (std::size_t r = 0; r < made.size(); ++r) made[r] = rows > 2 && r % 5 == 2 ? -1 : static_cast<std::int32_t>(r);
    return made;
  }

  std::deque<Bf16Values> biases;
};

constexpr std::int64_t kRows[] = {1, 3, 8, 20, 70, 300};

TEST_F(CudaExpertsTest, EveryWayInEveryKindOfRecipe) {
  for (const char* name : {"bf16",
                           "mxfp4-bf16",
                           "nvfp4-bf16",
                           "int4_g32-bf16",
                           "int4_g128-bf16",
                           "int8-bf16",
                           "int8_g32-bf16",
                           "fp8-bf16",
                           "mxfp8-bf16",
                           "int4_g128_asym-bf16",
                           "fp8-fp8",
                           "fp8_tensor-fp8_tensor",
                           "fp8_tensor-fp8",
                           "fp8_block128-fp8_group128",
                           "int8-int8",
                           "int8-int8_asym",
                           "mxfp4-fp8",
                           "mxfp8-mxfp8",
                           "mxfp4-mxfp4",
                           "nvfp4-nvfp4",
                           "nvfp4-nvfp4_tensor"}) {
    const formats::Recipe recipe = formats::recipe(name);
    const Shape shape{16, 3, 512, recipe.weight.group_rows > 1 || recipe.weight.group_cols >= 128 ? 256 : 224};
    const Experts made = experts(shape, recipe);
    const CudaExperts on_device = made.on_device(shape);
    for (const std::int64_t rows : kRows) {
      const Bf16Values x = rows_of(shape, rows);
      const auto at = positions(rows);
      const Bf16Values found = run(on_device, shape, at, x);
      const std::vector<float> expected = reference(shape, made, choose(shape, x, at), x);
      const bool few_bits = recipe.activation && formats::info(recipe.activation->format.element).bits < 8;
      EXPECT_LT(error(found, expected), few_bits            ? 0.06
                                        : recipe.activation ? 0.02
                                                            : 0.008)
          << name << ", " << on_device.plan(rows);
      EXPECT_EQ(found, run(on_device, shape, at, x)) << name << ", " << on_device.plan(rows);
      memories.clear();
    }
  }
}

TEST_F(CudaExpertsTest, AllRowsToTheSameExpertsAndBiasesAndAClampedGate) {
  const Shape shape{16, 4, 320, 160, kernels::GateActivation::clamped};
  const Experts made = experts(shape, formats::recipe("mxfp4-bf16"), true);
  const CudaExperts on_device = made.on_device(shape);
  for (const std::int64_t rows : kRows) {
    const Bf16Values x = rows_of(shape, rows, true);
    const std::vector<std::int32_t> at = positions(rows);
    EXPECT_LT(error(run(on_device, shape, at, x), reference(shape, made, choose(shape, x, at), x)), 0.008) << rows;
  }
}

TEST_F(CudaExpertsTest, GraphsAndManyTilesOfABlock) {
  const Shape shape{24, 8, 2048, 768};
  const Experts made = experts(shape, formats::recipe("mxfp4-bf16"));
  const CudaExperts on_device = made.on_device(shape);
  for (const std::int64_t rows : {1, 8, 40, 300}) {
    Bf16Values x = rows_of(shape, rows);
    std::vector<std::int32_t> at(static_cast<std::size_t>(rows), 0);
    const Bf16Values found = run(on_device, shape, at, x);
    EXPECT_EQ(found, run(on_device, shape, at, x, true)) << rows;
    if (rows > 8) continue;
    EXPECT_LT(error(found, reference(shape, made, choose(shape, x, at), x)), 0.008) << rows;
    // A row alone gets what it gets beside others.
    x.resize(static_cast<std::size_t>(shape.hidden));
    const Bf16Values alone = run(on_device, shape, {0}, x);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), found.begin())) << rows;
  }
}

// The norm in front, by itself and in the router's kernel.
TEST_F(CudaExpertsTest, NormsAndRoutesInOneKernel) {
  const Shape shape{24, 4, 512, 96};
  const Experts made = experts(shape, formats::recipe("mxfp4-bf16"));
  const CudaExperts on_device = made.on_device(shape);
  const std::vector<float> weight(static_cast<std::size_t>(shape.hidden), 0.5f);
  for (const std::int64_t rows : {1, 3, 4, 5, 40}) {
    const Bf16Values stream = rows_of(shape, rows), add = random(rows * shape.hidden, 0.25f);
    const std::vector<std::int32_t> at = positions(rows);
    cuda::AddNormTask norm{.stream = upload(stream),
                           .add = upload(add),
                           .sum = room<std::uint16_t>(rows * shape.hidden),
                           .weight = upload(weight),
                           .out = room<std::uint16_t>(rows * shape.hidden),
                           .rows = rows,
                           .width = shape.hidden};
    cuda::add_norm(norm, handle());
    const Bf16Values sum = download(static_cast<std::uint16_t*>(norm.sum), rows * shape.hidden),
                     x = download(static_cast<std::uint16_t*>(norm.out), rows * shape.hidden),
                     expected = run(on_device, shape, at, x);
    cuda::fill(norm.sum, 0xFF, sum.size() * 2, handle());
    cuda::fill(norm.out, 0xFF, sum.size() * 2, handle());
    auto* out = room<std::uint16_t>(rows * shape.hidden);
    auto* workspace = room<std::byte>(static_cast<std::int64_t>(on_device.workspace(rows)));
    for (int i = 0; i < 3; ++i)
      on_device.run(
          {.rows = rows, .positions = upload(at), .x = norm.out, .norm = &norm, .out = out, .workspace = workspace},
          handle());
    EXPECT_EQ(download(static_cast<std::uint16_t*>(norm.sum), rows * shape.hidden), sum) << rows;
    EXPECT_EQ(download(static_cast<std::uint16_t*>(norm.out), rows * shape.hidden), x) << rows;
    EXPECT_EQ(download(out, rows * shape.hidden), expected) << rows;
  }
}

TEST_F(CudaExpertsTest, RefusesWhatItCannotDo) {
  const Shape shape{4, 2, 64, 64};
  Experts made = experts(shape, formats::recipe("mxfp4-bf16"));
  made.up[1] = weight(64, 64, formats::recipe("fp8-bf16"), false);
  EXPECT_THROW(made.on_device(shape), Error);
  made = experts(shape, formats::recipe("bf16"));
  made.gate[0] = weight(72, 64, formats::recipe("bf16"), false);
  EXPECT_THROW(made.on_device(shape), Error);
}

}  // namespace
}  // namespace lowp::ops
