// Tiny seeded models of the architectures that no model of the tree has, against transformers.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/models/model.h"
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
  const std::vector<std::int32_t> tokens(view.as<std::int32_t>(), view.as<std::int32_t>() + element_count(view.shape));
  const auto error = [&](formats::Elem compute, const char* expected) {
    models::Model model(folder_.path(), {compute});
    models::Cache cache(model);
    // Two chunks, so that the second looks back over the first.
    std::vector<float> found;
    for (const auto part : {std::span(tokens).first(10), std::span(tokens).subspan(10)}) {
      const models::Chunk chunk{part, &cache};
      model.forward({&chunk, 1});
      const std::vector<float> logits = model.logits();
      found.insert(found.end(), logits.begin(), logits.end());
    }
    return rms_error(found, golden.view(*golden.find(expected)));
  };
  EXPECT_LT(error(formats::Elem::f32, "expected/logits_f32"), 2e-5);
  const double noise = error(formats::Elem::f32, "expected/logits_bf16");
  EXPECT_LT(error(formats::Elem::bf16, "expected/logits_bf16"), 1.5 * noise);
  EXPECT_LT(error(formats::Elem::bf16, "expected/logits_f32"), 1.5 * noise);
}

TEST_P(Architecture, ShapesAreChecked) {
  const checkpoint::Checkpoint model(folder_.path());
  auto config = checkpoint::read_model_config(*model.config(), "config.json");
  ASSERT_TRUE(config);
  checkpoint::check_shapes(*config, model);
  config->head_dim *= 2;
  EXPECT_THROW(checkpoint::check_shapes(*config, model), Error);
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

INSTANTIATE_TEST_SUITE_P(Golden, Architecture, testing::Values("qwen2", "gemma3"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace lowp
