// Tiny seeded models of the architectures that no model of the tree has, against transformers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/formats/recipes.h"
#include "lowp/models/model.h"
#include "lowp/models/shapes.h"
#include "lowp/quant/convert_checkpoint.h"
#include "lowp/quant/quantize_checkpoint.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

class Architecture : public testing::TestWithParam<const char*> {
 protected:
  // The golden file is a checkpoint: its config is in the metadata, and the expected logits are tensors beside.
  void SetUp() override {
    const std::string golden = std::string(LOWP_SOURCE_DIR) + "/tests/golden/arch_" + GetParam() + ".safetensors";
    std::filesystem::copy_file(golden, folder_ / "model.safetensors");
    FileWriter config(folder_ / "config.json");
    config.append(file().header().metadata.at("config"));
    config.close();
  }

  checkpoint::SafetensorsFile file() const { return checkpoint::SafetensorsFile(folder_ / "model.safetensors"); }

  TempDir folder_;
};

double rms_error(const std::vector<float>& found, const TensorView& expected) {
  double squares = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double error = found[i] - expected.as<float>()[i];
    squares += error * error;
  }
  return std::sqrt(squares / static_cast<double>(found.size()));
}

TEST_P(Architecture, LogitsAgreeWithTransformers) {
  const checkpoint::SafetensorsFile golden = file();
  const TensorView view = golden.view(*golden.find("expected/tokens"));
  const std::int64_t prompts = view.shape[0], length = view.shape[1];
  const std::span tokens(view.as<std::int32_t>(), static_cast<std::size_t>(prompts * length));
  // All prompts as one batch: in two chunks, so that the second looks back over the first, or token by token.
  const auto error = [&](formats::Elem compute, std::int64_t first, std::int64_t step, const char* expected) {
    models::Model model(folder_.path(), {compute});
    std::vector<models::Cache> caches;
    for (std::int64_t p = 0; p < prompts; ++p) caches.emplace_back(model);
    std::vector<std::vector<float>> found(static_cast<std::size_t>(prompts));
    for (std::int64_t begin = 0, end = first; begin < length; begin = end, end = std::min(end + step, length)) {
      std::vector<models::Chunk> batch;
      for (std::int64_t p = 0; p < prompts; ++p)
        batch.push_back(
            {tokens.subspan(static_cast<std::size_t>(p * length + begin), static_cast<std::size_t>(end - begin)),
             &caches[static_cast<std::size_t>(p)]});
      model.forward(batch);
      const std::vector<float> logits = model.logits();
      const std::int64_t own = (end - begin) * model.config().vocab_size;
      for (std::int64_t p = 0; p < prompts; ++p)
        found[static_cast<std::size_t>(p)].insert(found[static_cast<std::size_t>(p)].end(), logits.begin() + p * own,
                                                  logits.begin() + (p + 1) * own);
    }
    std::vector<float> all;
    for (const std::vector<float>& logits : found) all.insert(all.end(), logits.begin(), logits.end());
    return rms_error(all, golden.view(*golden.find(expected)));
  };
  EXPECT_LT(error(formats::Elem::f32, 10, 10, "expected/logits_f32"), 2e-5);
  EXPECT_LT(error(formats::Elem::f32, 3, 1, "expected/logits_f32"), 2e-5);
  const double noise = error(formats::Elem::f32, 10, 10, "expected/logits_bf16");
  EXPECT_LT(error(formats::Elem::bf16, 10, 10, "expected/logits_bf16"), 1.5 * noise);
  EXPECT_LT(error(formats::Elem::bf16, 10, 10, "expected/logits_f32"), 1.5 * noise);
}

// What other checkpoints of the same model give: experts one by one with the biases of the stack.
class GptOss : public Architecture {
 protected:
  std::vector<float> logits(const std::string& path) const {
    const checkpoint::SafetensorsFile golden = file();
    const TensorView view = golden.view(*golden.find("expected/tokens"));
    models::Model model(path, {formats::Elem::f32});
    models::Cache cache(model);
    const models::Chunk chunk{{view.as<std::int32_t>(), static_cast<std::size_t>(view.shape[1])}, &cache};
    model.forward({&chunk, 1});
    return model.logits();
  }
};

TEST_P(GptOss, ConvertedItIsTheSame) {
  for (const char* dialect : {"compressed-tensors", "lowp"}) {
    quant::ConvertRequest request;
    request.model = folder_.path();
    request.output = folder_ / dialect;
    request.dialect = dialect;
    quant::convert_checkpoint(request);
    EXPECT_EQ(logits(request.output), logits(folder_.path())) << dialect;
  }
}

class StackedGptOss : public GptOss {};

TEST_P(StackedGptOss, QuantizedItIsClose) {
  const std::vector<float> expected = logits(folder_.path());
  quant::QuantizeRequest request;
  request.model = folder_.path();
  request.output = folder_ / "quantized";
  request.rules = quant::Rules::single(formats::recipe("int8-bf16"));
  const quant::QuantizeReport report = quant::quantize_checkpoint(std::move(request));
  EXPECT_EQ(report.layers.size(), 2 * (4 + 3 * 4));
  const std::vector<float> found = logits(folder_ / "quantized");
  EXPECT_NE(found, expected);
  EXPECT_LT(
      rms_error(found, {DType::f32, {static_cast<std::int64_t>(found.size())}, std::as_bytes(std::span(expected))}),
      0.1);
}

class FloatArchitecture : public Architecture {};

TEST_P(FloatArchitecture, ShapesAreChecked) {
  const checkpoint::Checkpoint model(folder_.path());
  auto config = checkpoint::read_model_config(*model.config(), "config.json");
  ASSERT_TRUE(config);
  checkpoint::check_shapes(*config, model);
  config->head_dim *= 2;
  EXPECT_THROW(checkpoint::check_shapes(*config, model), Error);
}

TEST(Shapes, AreConfigurations) {
  for (const std::string& name : models::shape_names()) EXPECT_GT(models::shape(name).hidden_size, 0) << name;
  const models::Config gpt_oss = models::shape("gpt-oss-20b"), mistral = models::shape("mistral-7b");
  EXPECT_EQ((std::vector{gpt_oss.window[0], gpt_oss.window[1], gpt_oss.window[22], gpt_oss.window[23]}),
            (std::vector<std::int64_t>{128, 0, 128, 0}));
  EXPECT_NEAR(gpt_oss.rope.attention_factor, 1.3466, 1e-4);
  EXPECT_EQ(mistral.window[0], 0);
  EXPECT_EQ(models::shape("mixtral-8x7b").experts_per_token, 2);
}

// A file made by the gguf package: names, metadata, and the order of rows that llama.cpp's converter gives q and k.
TEST(GgufModel, LogitsAgreeWithTransformers) {
  const std::string path = std::string(LOWP_SOURCE_DIR) + "/tests/golden/gguf_llama.gguf";
  const checkpoint::Checkpoint file(path);
  const checkpoint::GgufMetadata& metadata = file.gguf()->metadata();
  const auto tokens = metadata.array("expected.tokens", checkpoint::GgufType::i32)->get<std::vector<std::int32_t>>();
  const auto expected = metadata.array("expected.logits", checkpoint::GgufType::f32)->get<std::vector<float>>();
  models::Model model(path, {formats::Elem::f32});
  models::Cache cache(model);
  const models::Chunk chunk{tokens, &cache};
  model.forward({&chunk, 1});
  const std::vector<float> found = model.logits();
  EXPECT_LT(
      rms_error(found, {DType::f32, {static_cast<std::int64_t>(expected.size())}, std::as_bytes(std::span(expected))}),
      2e-5);
}

std::string label(const testing::TestParamInfo<const char*>& instance) { return instance.param; }

INSTANTIATE_TEST_SUITE_P(Golden, Architecture,
                         testing::Values("qwen2", "gemma3", "mistral", "mixtral", "gpt_oss", "gpt_oss_mxfp4"), label);
INSTANTIATE_TEST_SUITE_P(Golden, GptOss, testing::Values("gpt_oss_mxfp4"), label);
INSTANTIATE_TEST_SUITE_P(Golden, StackedGptOss, testing::Values("gpt_oss"), label);
INSTANTIATE_TEST_SUITE_P(Golden, FloatArchitecture, testing::Values("qwen2", "gemma3", "mistral", "mixtral", "gpt_oss"),
                         label);

}  // namespace
}  // namespace lowp
