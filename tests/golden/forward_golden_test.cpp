// The forward pass against transformers, and against itself in other batches.
#include <gtest/gtest.h>

#include <cmath>

#include "lowp/base/error.h"
#include "lowp/eval/perplexity.h"
#include "lowp/formats/recipes.h"
#include "lowp/models/model.h"
#include "lowp/models/rope.h"
#include "lowp/quant/quantize_checkpoint.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

const std::string kRoot = LOWP_SOURCE_DIR;

const checkpoint::SafetensorsFile& golden() {
  static const checkpoint::SafetensorsFile file(kRoot + "/tests/golden/forward.safetensors");
  return file;
}

TensorView tensor(const std::string& name) {
  const auto* entry = golden().find(name);
  EXPECT_NE(entry, nullptr) << name;
  return entry ? golden().view(*entry) : TensorView{};
}

std::vector<std::int32_t> ids(const std::string& name) {
  const TensorView view = tensor(name);
  return {view.as<std::int32_t>(), view.as<std::int32_t>() + element_count(view.shape)};
}

std::string text(const std::string& name) {
  const TensorView view = tensor(name);
  return {view.as<char>(), view.bytes.size()};
}

// Logits [tokens, vocab] of one sequence in one call.
std::vector<float> logits(models::Model& model, const std::vector<std::int32_t>& tokens) {
  models::Cache cache(model);
  const models::Chunk chunk{tokens, &cache};
  model.forward({&chunk, 1});
  return model.logits();
}

class Forward : public testing::TestWithParam<std::string> {};

// Root mean square of the differences between logits [tokens, vocab] and transformers' 20 likeliest of each position.
double distance(const std::vector<float>& logits, const std::string& at) {
  const TensorView top = tensor(at + "/top_ids"), expected = tensor(at + "/top_logits");
  const std::size_t vocab = logits.size() / static_cast<std::size_t>(top.shape[0]);
  double squares = 0;
  for (std::int64_t i = 0; i < element_count(top.shape); ++i) {
    const auto column = static_cast<std::size_t>(top.as<std::int32_t>()[i]);
    const double error = logits[static_cast<std::size_t>(i) / 20 * vocab + column] - expected.as<float>()[i];
    squares += error * error;
  }
  return std::sqrt(squares / static_cast<double>(element_count(top.shape)));
}

// Mean over positions of our negative log-likelihood minus transformers'.
double nll_difference(std::vector<float> logits, const std::vector<std::int32_t>& tokens, const std::string& at) {
  const TensorView nll = tensor(at + "/nll");
  const std::size_t vocab = logits.size() / tokens.size();
  double difference = 0;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto row = std::span(logits).subspan(i * vocab, vocab);
    eval::log_softmax(row);
    difference -= static_cast<double>(row[static_cast<std::size_t>(tokens[i + 1])] + nll.as<float>()[i]);
  }
  return difference / static_cast<double>(tokens.size() - 1);
}

TEST_P(Forward, LogitsAgreeWithTransformers) {
  const std::vector<std::int32_t> tokens = ids(GetParam() + "/tokens");
  models::Model exact(kRoot + "/models/" + GetParam(), {formats::Elem::f32});
  const std::vector<float> f32 = logits(exact, tokens);
  EXPECT_LT(distance(f32, GetParam() + "/f32"), 2e-5);
  EXPECT_NEAR(nll_difference(f32, tokens, GetParam() + "/f32"), 0, 1e-5);
  // bf16 rounds in both: two such runs are no farther apart than sqrt(2) times what either is from the exact one.
  models::Model rounded(kRoot + "/models/" + GetParam(), {formats::Elem::bf16});
  const std::vector<float> bf16 = logits(rounded, tokens);
  const double noise = distance(f32, GetParam() + "/bf16");
  EXPECT_LT(distance(bf16, GetParam() + "/bf16"), 1.5 * noise);
  EXPECT_LT(distance(bf16, GetParam() + "/f32"), 1.5 * noise);
  EXPECT_NEAR(nll_difference(bf16, tokens, GetParam() + "/bf16"), 0, 0.01);
}

// Tokens identical, or at the first difference the reference hardly prefers its own and both chose one of its two best.
TEST_P(Forward, GreedyAgreesWithTransformers) {
  models::Model model(kRoot + "/models/" + GetParam(), {formats::Elem::f32});
  for (int prompt = 0; prompt < 4; ++prompt) {
    const std::string name = GetParam() + "/f32/greedy" + std::to_string(prompt);
    std::vector<std::int32_t> next = ids(GetParam() + "/greedy" + std::to_string(prompt) + "/prompt_ids");
    const std::vector<std::int32_t> expected = ids(name + "/ids"), top2 = ids(name + "/top2");
    models::Cache cache(model);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const models::Chunk chunk{next, &cache};
      model.forward({&chunk, 1});
      const std::int64_t last = model.rows() - 1;
      const std::int32_t token = model.likeliest({&last, 1}, model.config().vocab_size)[0];
      if (token != expected[i]) {
        EXPECT_LT(tensor(name + "/gap").as<float>()[i], 0.05f) << name << " step " << i;
        EXPECT_TRUE(token == top2[2 * i] || token == top2[2 * i + 1]) << name << " step " << i;
        break;
      }
      next = {token};
    }
  }
}

// Alone, in a batch of others and in other pieces a sequence gets the same bits.
TEST_P(Forward, DoesNotDependOnBatchOrChunks) {
  const TempDir folder;
  for (const std::string& recipe : formats::demo_recipe_names()) {
    const auto activation = formats::recipe(recipe).activation;
    if (activation && activation->scope != formats::Scope::token) continue;
    quant::QuantizeRequest request;
    request.model = kRoot + "/models/" + GetParam();
    request.output = folder / recipe;
    request.rules = quant::Rules::single(formats::recipe(recipe));
    quant::quantize_checkpoint(std::move(request));
    models::Model model(folder / recipe, {});
    const std::vector<std::int32_t> tokens = ids(GetParam() + "/tokens");
    const std::span<const std::int32_t> all(tokens);
    models::Cache alone(model);
    const models::Chunk whole{all, &alone};
    model.forward({&whole, 1});
    const std::vector<float> expected = model.logits();

    models::Cache pieces(model), other(model);
    std::vector<float> found;
    std::size_t at = 0;
    for (const std::size_t count : {std::size_t{1}, std::size_t{17}, std::size_t{5}, tokens.size() - 23}) {
      const std::vector<models::Chunk> batch = {{all.subspan(3, 7 + count % 5), &other},
                                                {all.subspan(at, count), &pieces}};
      model.forward(batch);
      const std::vector<float> all_logits = model.logits();
      found.insert(
          found.end(),
          all_logits.end() - static_cast<std::ptrdiff_t>(count * static_cast<std::size_t>(model.config().vocab_size)),
          all_logits.end());
      at += count;
    }
    EXPECT_EQ(found, expected) << recipe;

    // With a tap, products and what follows them are not fused.
    std::size_t seen = 0;
    model.set_tap([&](const std::string&, auto, std::int64_t, auto, std::int64_t) { ++seen; });
    models::Cache tapped(model);
    const models::Chunk again{all, &tapped};
    model.forward({&again, 1});
    EXPECT_EQ(model.logits(), expected) << recipe;
    EXPECT_GE(seen, 7u * static_cast<std::size_t>(model.config().num_hidden_layers));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Forward, testing::Values("bookworm-8m", "bookworm-moe-9m"),
                         [](const auto& instance) { return instance.param == "bookworm-8m" ? "dense" : "moe"; });

TEST(Rope, AnglesAgreeWithTransformers) {
  const std::vector<std::int32_t> positions = ids("rope/positions");
  for (const char* kind :
       {"default", "linear", "llama3", "llama3_factor32", "yarn", "yarn_attention", "yarn_betas", "yarn_mscale"}) {
    const std::string name = std::string("rope/") + kind;
    Json config = read_json(kRoot + "/models/bookworm-8m/config.json");
    config.update(parse_json(text(name + "/config"), name));
    const models::Config parsed = models::parse_config(config, name);
    const models::RopeTable table(parsed.rope, 64, formats::Elem::f32);
    std::vector<float> cos(32), sin(32);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      table.angles(positions[i], cos.data(), sin.data());
      // Frequencies are rounded to f32 here and there: an angle of p radians is good to about p * 2^-23.
      const double bound = 1e-6 + 4e-7 * positions[i];
      for (std::size_t j = 0; j < 32; ++j) {
        EXPECT_NEAR(cos[j], tensor(name + "/cos").as<float>()[i * 64 + j], bound)
            << name << " " << positions[i] << " " << j;
        EXPECT_NEAR(sin[j], tensor(name + "/sin").as<float>()[i * 64 + j], bound)
            << name << " " << positions[i] << " " << j;
      }
    }
  }
}

TEST(Rope, OtherKindsAreRefused) {
  const Json plain = read_json(kRoot + "/models/bookworm-8m/config.json");
  for (const char* change :
       {R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}})",
        R"({"rope_scaling": {"type": "longrope", "factor": 2}})", R"({"partial_rotary_factor": 0.5})",
        R"({"rope_scaling": {"rope_type": "linear"}})", R"({"rope_scaling": {"rope_type": "linear", "factor": -1}})",
        R"({"hidden_act": "gelu"})", R"({"architectures": ["GemmaForCausalLM"]})",
        R"({"layer_types": ["sliding_attention"]})", R"({"rope_scaling": {"rope_type": 7, "factor": 2}})",
        R"({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 2, "num_experts_per_tok": 1,
            "moe_intermediate_size": 8, "mlp_only_layers": ["1"]})"}) {
    Json config = plain;
    config.update(parse_json(change, "change"));
    EXPECT_THROW(models::parse_config(config, "config.json"), Error) << change;
  }
}

}  // namespace
}  // namespace lowp
