#include "lowp/checkpoint/expert_stack.h"

#include "lowp/checkpoint/dialect_testing.h"

namespace lowp::checkpoint {
namespace {

constexpr std::int64_t kExperts = 3, kHidden = 5, kInner = 4;
const std::string kBlock = "model.layers.0.mlp.experts.";

// A stack whose element at (expert, output, input) of gate (0), up (1) or down (2) is a number made of the four, in one
// order or the other, with biases.
class ExpertStack : public ::testing::TestWithParam<bool> {
 protected:
  static float value(std::int64_t part, std::int64_t e, std::int64_t out, std::int64_t in) {
    return static_cast<float>(1000 * part + 100 * e + 10 * out + in);
  }
  void SetUp() override {
    const bool columns = GetParam();
    testing::Contents contents;
    const auto stack = [&](const std::string& name, std::int64_t first, std::int64_t n, std::int64_t k,
                           std::int64_t parts) {
      Tensor t(DType::f32, columns ? Shape{kExperts, k, parts * n} : Shape{kExperts, parts * n, k}),
          bias(DType::f32, {kExperts, parts * n});
      for (std::int64_t e = 0; e < kExperts; ++e)
        for (std::int64_t part = 0; part < parts; ++part)
          for (std::int64_t i = 0; i < n; ++i) {
            // gpt-oss's order of biases is the same whatever the weights are stored as.
            bias.as<float>()[e * parts * n + parts * i + part] = value(first + part, e, i, 9);
            for (std::int64_t j = 0; j < k; ++j)
              t.as<float>()[columns ? (e * k + j) * parts * n + parts * i + part
                                    : (e * parts * n + part * n + i) * k + j] = value(first + part, e, i, j);
          }
      contents.add(kBlock + name, std::move(t));
      contents.add(kBlock + name + "_bias", std::move(bias));
    };
    stack("gate_up_proj", 0, kInner, kHidden, 2);
    stack("down_proj", 2, kHidden, kInner, 1);
    contents.config = Json{{"model_type", columns ? "gpt_oss" : "qwen3_moe"}};
    contents.write(folder_);
  }
  TempDir folder_;
};

TEST_P(ExpertStack, MatricesAndBiasesOfModules) {
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(stacks_columns(checkpoint), GetParam());
  const char* const parts[] = {"gate_proj", "up_proj", "down_proj"};
  for (std::int64_t e = 0; e < kExperts; ++e)
    for (std::int64_t part = 0; part < 3; ++part) {
      const std::string module = fmt::format("{}{}.{}", kBlock, e, parts[part]);
      const auto slice = find_stacked(checkpoint, module);
      ASSERT_TRUE(slice) << module;
      EXPECT_EQ(slice->n, part == 2 ? kHidden : kInner);
      EXPECT_EQ(slice->k, part == 2 ? kInner : kHidden);
      Tensor holder, bias_holder;
      const TensorView view = slice->load(holder);
      EXPECT_EQ(holder.empty(), !GetParam()) << "gathered";
      ASSERT_EQ(view.shape, (Shape{slice->n, slice->k}));
      const auto bias = find_stacked_bias(checkpoint, module, slice->n);
      ASSERT_TRUE(bias) << module;
      const TensorView biases = bias->load(bias_holder);
      for (std::int64_t i = 0; i < slice->n; ++i) {
        EXPECT_EQ(biases.as<float>()[i], value(part, e, i, 9)) << module;
        for (std::int64_t j = 0; j < slice->k; ++j)
          EXPECT_EQ(view.as<float>()[i * slice->k + j], value(part, e, i, j)) << module;
      }
    }
  EXPECT_FALSE(find_stacked(checkpoint, kBlock + "3.gate_proj"));
  EXPECT_FALSE(find_stacked(checkpoint, kBlock + "0.w1"));
  EXPECT_FALSE(find_stacked(checkpoint, "model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(find_stacked_bias(checkpoint, "model.layers.1.mlp.experts.0.gate_proj", kInner));
  EXPECT_THROW(find_stacked_bias(checkpoint, kBlock + "0.gate_proj", kInner + 1), Error);
}

TEST_P(ExpertStack, ListsItsModules) {
  const Checkpoint checkpoint(folder_.path());
  std::vector<std::string> names;
  for (const char* stack : {"gate_up_proj", "down_proj"})
    for (const auto& [module, slice] : stacked_matrices(*checkpoint.find(kBlock + stack), GetParam())) {
      names.push_back(module.substr(kBlock.size()));
      const auto found = find_stacked(checkpoint, module);
      ASSERT_TRUE(found);
      EXPECT_EQ(found->first, slice.first);
      EXPECT_EQ(found->row, slice.row);
      EXPECT_EQ(found->column, slice.column);
    }
  EXPECT_EQ(names, (std::vector<std::string>{"0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj", "2.gate_proj",
                                             "2.up_proj", "0.down_proj", "1.down_proj", "2.down_proj"}));
}

INSTANTIATE_TEST_SUITE_P(Orders, ExpertStack, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "columns" : "rows"; });

TEST(ExpertName, IsTakenApart) {
  const auto parsed = parse_expert("model.layers.3.mlp.experts.17.up_proj");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->block, "model.layers.3.mlp.experts.");
  EXPECT_EQ(parsed->expert, 17);
  EXPECT_EQ(parsed->part, "up_proj");
  for (const char* other : {"model.layers.3.mlp.up_proj", "a.experts.gate_up_proj", "a.experts.-1.up_proj",
                            "a.experts.1x.up_proj", "a.experts.99999999999999999999.up_proj", "a.experts.1"})
    EXPECT_FALSE(parse_expert(other)) << other;
}

}  // namespace
}  // namespace lowp::checkpoint
