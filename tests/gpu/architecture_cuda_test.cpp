// Every architecture on the GPU against the CPU, with seeded weights of shapes that a GPU takes. (The CPU is compared
// with transformers by golden.Architecture.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/json.h"
#include "lowp/checkpoint/safetensors.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/models/weights.h"
#include "lowp/quant/quantize_checkpoint.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

constexpr std::int64_t kPrompt = 150, kDecoded = 40, kWindow = 40;

// Makes up whatever a model asks for, and keeps it.
class SeededSource final : public models::WeightSource {
 public:
  std::vector<float> vector(const std::string& name, std::int64_t size) override {
    add(name, {size}, 0.3, name.ends_with("norm.weight") ? 1.0 : 0.0);
    return std::vector<float>(static_cast<std::size_t>(size));
  }
  ops::LinearWeight linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override {
    add(module + ".weight", {n, k}, 1.5 / std::sqrt(static_cast<double>(k)), 0);
    if (bias) add(module + ".bias", {n}, 0.3, 0);
    return {};
  }
  ops::LinearWeight router(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override {
    return linear(module, n, k, bias);
  }
  ops::LinearWeight head(const std::string& module, std::int64_t n, std::int64_t k,
                         const models::LoadOptions&) override {
    return linear(module, n, k, false);
  }
  bool has(const std::string&) const override { return true; }
  TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor&) override {
    linear(module, n, k, false);
    return {};
  }
  std::uint64_t linear_bytes() const override { return 0; }
  std::string recipe() const override { return "bf16"; }
  std::string where() const override { return "seeded weights"; }

  void write(const TempDir& folder) const {
    FileWriter out(folder / "model.safetensors");
    checkpoint::SafetensorsWriter writer(out, entries_, {});
    for (std::size_t i = 0; i < entries_.size(); ++i) writer.append(entries_[i].name, tensors_[i].bytes());
    writer.finish();
    out.close();
  }

 private:
  void add(const std::string& name, Shape shape, double deviation, double mean) {
    std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(deviation));
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    for (float& v : values) v = normal(rng_);
    Tensor tensor(DType::bf16, shape);
    store_rounded(tensor, 0, values);
    entries_.push_back({name, DType::bf16, std::move(shape)});
    tensors_.push_back(std::move(tensor));
  }

  std::mt19937 rng_{20260101};
  std::vector<checkpoint::TensorEntry> entries_;
  std::vector<Tensor> tensors_;
};

Json config_of(const std::string& architecture) {
  Json config = {{"hidden_size", 256},
                 {"intermediate_size", 384},
                 {"num_hidden_layers", 4},
                 {"num_attention_heads", 8},
                 {"num_key_value_heads", 2},
                 {"head_dim", 64},
                 {"vocab_size", 512},
                 {"max_position_embeddings", 512},
                 {"tie_word_embeddings", false},
                 {"sliding_window", kWindow},
                 {"rms_norm_eps", 1e-5}};
  config["architectures"] = {architecture};
  if (architecture == "Qwen2ForCausalLM") {
    config["use_sliding_window"] = true;
    config["max_window_layers"] = 2;
  }
  if (architecture == "Gemma3ForCausalLM") {
    config["hidden_activation"] = "gelu_pytorch_tanh";
    config["query_pre_attn_scalar"] = 64;
    config["tie_word_embeddings"] = true;
  }
  if (architecture == "MixtralForCausalLM" || architecture == "GptOssForCausalLM") {
    config["num_local_experts"] = 8;
    config["num_experts_per_tok"] = 2;
    config["intermediate_size"] = 128;
  }
  if (architecture == "GptOssForCausalLM") {
    config["model_type"] = "gpt_oss";
    config["rope_scaling"] = {
        {"rope_type", "yarn"}, {"factor", 8.0}, {"truncate", false}, {"original_max_position_embeddings", 64}};
  }
  return config;
}

void write_model(const Json& json, const TempDir& folder) {
  const models::Config config = models::parse_config(json, "config");
  SeededSource source;
  Tensor holder;
  source.embedding("model.embed_tokens", config.vocab_size, config.hidden_size, holder);
  models::read_norm(config, source, "model.norm", config.hidden_size);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i)
    models::read_layer<ops::LinearWeight>(config, source, i, [](ops::LinearWeight&& w) { return std::move(w); });
  if (!config.tie_word_embeddings) source.head("lm_head", config.vocab_size, config.hidden_size, {});
  source.write(folder);
  folder.write("config.json", json.dump());
}

class CudaArchitecture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
    write_model(config_of(GetParam()), folder_);
  }

  // Logits of a prompt in two chunks, then token by token.
  static std::vector<std::vector<float>> logits(const std::string& path, const models::LoadOptions& options) {
    models::Model model(path, options);
    models::Cache cache(model);
    std::mt19937 rng(5);
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = 0; i < kPrompt + kDecoded; ++i)
      tokens.push_back(static_cast<std::int32_t>(rng() % static_cast<unsigned>(model.config().vocab_size)));
    std::vector<std::vector<float>> rows;
    for (std::int64_t begin = 0, end = 64; begin < kPrompt + kDecoded; begin = end, end = std::max(kPrompt, end + 1)) {
      const models::Chunk chunk{
          std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), &cache};
      model.forward({&chunk, 1});
      const std::vector<float> all = model.logits();
      const auto width = static_cast<std::ptrdiff_t>(model.config().vocab_size);
      for (auto at = all.begin(); at != all.end(); at += width) rows.emplace_back(at, at + width);
    }
    return rows;
  }

  // The median over rows: where two experts are as likely as each other, either may be chosen.
  static double difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
    std::vector<double> rows;
    for (std::size_t r = 0; r < a.size(); ++r) {
      double squares = 0;
      for (std::size_t i = 0; i < a[r].size(); ++i) {
        const double d = static_cast<double>(a[r][i]) - static_cast<double>(b[r][i]);
        squares += d * d;
      }
      rows.push_back(std::sqrt(squares / static_cast<double>(a[r].size())));
    }
    std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(rows.size() / 2), rows.end());
    return rows[rows.size() / 2];
  }

  // The GPU is no farther from f32 than the CPU is in bf16.
  static void expect_as_on_the_cpu(const std::string& path) {
    models::LoadOptions on_gpu;
    on_gpu.device.cuda = 0;
    const auto exact = logits(path, {formats::Elem::f32}), cpu = logits(path, {}), gpu = logits(path, on_gpu);
    const double noise = difference(cpu, exact), found = difference(gpu, exact);
    std::printf("%-20s rounding on the CPU %.4f, on the GPU %.4f, between them %.4f\n", GetParam(), noise, found,
                difference(gpu, cpu));
    EXPECT_LT(found, 1.25 * noise);
    EXPECT_LT(difference(gpu, cpu), 1.5 * noise);
  }

  TempDir folder_;
};

TEST_P(CudaArchitecture, LogitsAgreeWithTheCpu) { expect_as_on_the_cpu(folder_.path()); }

TEST_P(CudaArchitecture, LogitsAgreeWithTheCpuInMxfp4) {
  quant::QuantizeRequest request;
  request.model = folder_.path();
  request.output = folder_ / "quantized";
  request.rules = quant::Rules::single(formats::recipe("mxfp4-bf16"));
  quant::quantize_checkpoint(std::move(request));
  expect_as_on_the_cpu(folder_ / "quantized");
}

TEST(CudaRefused, ItSaysWhatRunsIt) {
  if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
  TempDir folder;
  Json config = config_of("MistralForCausalLM");
  config["head_dim"] = 32;
  write_model(config, folder);
  models::LoadOptions on_gpu;
  on_gpu.device.cuda = 0;
  try {
    models::Model model(folder.path(), on_gpu);
    ADD_FAILURE() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(e.what()).find("--device cpu"), std::string::npos) << e.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaArchitecture,
                         testing::Values("Qwen2ForCausalLM", "Gemma3ForCausalLM", "MistralForCausalLM",
                                         "MixtralForCausalLM", "GptOssForCausalLM"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace lowp
