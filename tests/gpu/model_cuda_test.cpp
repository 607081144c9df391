// Models on the GPU against the CPU: the same text, the same numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/json.h"
#include "lowp/base/temporary_folder.h"
#include "lowp/engine/sampler.h"
#include "lowp/eval/calibrate.h"
#include "lowp/eval/perplexity.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/models/shapes.h"
#include "lowp/quant/quantize_checkpoint.h"
#include "tests/gpu/source_folder.h"

namespace lowp {
namespace {

const std::string kRoot = source_folder();

models::LoadOptions on_gpu() {
  models::LoadOptions options;
  options.device.cuda = 0;
  return options;
}

class CudaModel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
  }
  std::string path() const { return kRoot + "/models/" + GetParam(); }
  text::Tokenizer tokenizer() const { return text::Tokenizer::from_file(path() + "/tokenizer.json"); }
  static std::string text() { return read_text(kRoot + "/tests/golden/demo.txt"); }
  // The model in a recipe, calibrated on the text where it has to be.
  void quantize(const std::string& recipe, const std::string& output) const {
    quant::QuantizeRequest request;
    request.model = path();
    request.output = output;
    request.rules = quant::Rules::single(formats::recipe(recipe));
    request.calibrate = [&](const std::string& model, const std::set<std::string>& grams) {
      models::Model loaded(model, {});
      return eval::input_stats(loaded, tokenizer(), text(), 1024, grams, [](std::uint64_t, std::uint64_t) {});
    };
    quant::quantize_checkpoint(std::move(request));
  }
};

// Of the nats that a recipe's products may differ by: sums in another order, and activations that fall on the other
// side of a rounding.
double bound(const std::string& recipe, double nll) {
  const auto activation = formats::recipe(recipe).activation;
  const bool few_bits = activation && formats::info(activation->format.element).bits <= 6;
  return (few_bits ? 0.01 : 0.003) * std::max(1.0, nll / 5);
}

TEST_P(CudaModel, EveryRecipeHasTheNllOfTheCpu) {
  const Json golden = read_json(kRoot + "/tests/golden/nll-" + GetParam() + ".json");
  std::set<std::string> recipes;
  for (const Json& row : golden["results"]) recipes.insert(row["recipe"].get<std::string>());
  const eval::PerplexityOptions options;
  for (const std::string& recipe : recipes) {
    const TemporaryFolder folder;
    quantize(recipe, folder.path() + "/out");
    models::Model cpu(folder.path() + "/out", {}), gpu(folder.path() + "/out", on_gpu());
    const auto result = eval::perplexity(gpu, &cpu, false, tokenizer(), text(), options);
    const double expected = eval::perplexity(cpu, nullptr, false, tokenizer(), text(), options).nll;
    EXPECT_NEAR(result.nll, expected, bound(recipe, expected)) << recipe;
    // What rounding logits to bf16 makes of equal hidden states, about.
    if (recipe == "bf16") EXPECT_LE(result.kl->mean, 5e-4);
    std::printf("%-28s nll %.4f, on the CPU %.4f, KL %.1e\n", recipe.c_str(), result.nll, expected, result.kl->mean);
  }
}

// Those that are not the default, of experts too (whose products know no others than exact ones).
TEST_P(CudaModel, OperandsAreExactOrRoundedIfAsked) {
  const eval::PerplexityOptions options;
  for (const auto& [recipe, operands, most] : {std::tuple{"mxfp8-mxfp8", ops::Operands::exact, 0.003},
                                               {"mxfp4-mxfp8", ops::Operands::exact, 0.003},
                                               {"nvfp4-nvfp4", ops::Operands::rounded, 0.05}}) {
    const TemporaryFolder folder;
    quantize(recipe, folder.path() + "/out");
    models::LoadOptions load = on_gpu();
    load.operands = operands;
    models::Model cpu(folder.path() + "/out", {}), gpu(folder.path() + "/out", load);
    const double expected = eval::perplexity(cpu, nullptr, false, tokenizer(), text(), options).nll,
                 found = eval::perplexity(gpu, nullptr, false, tokenizer(), text(), options).nll;
    EXPECT_NEAR(found, expected, most) << recipe;
    std::printf("%-28s nll %.4f, on the CPU %.4f\n", recipe, found, expected);
  }
}

TEST_P(CudaModel, CalibratedActivationsHaveTheNllOfTheCpu) {
  const eval::PerplexityOptions options;
  for (const std::string recipe : {"fp8_tensor-fp8_static", "int8-int8_static", "int4_g128-fp8_static",
                                   "mxfp4-fp8_static", "nvfp4-nvfp4_static"}) {
    const TemporaryFolder folder;
    quantize(recipe, folder.path() + "/out");
    if (GetParam() == "bookworm-moe-9m") {  // not of experts
      EXPECT_THROW(models::Model(folder.path() + "/out", on_gpu()), Error) << recipe;
      continue;
    }
    models::Model cpu(folder.path() + "/out", {}), gpu(folder.path() + "/out", on_gpu());
    const double expected = eval::perplexity(cpu, nullptr, false, tokenizer(), text(), options).nll,
                 found = eval::perplexity(gpu, nullptr, false, tokenizer(), text(), options).nll;
    // One step for all of a layer's activations is coarser than one for each row.
    EXPECT_NEAR(found, expected, 2 * bound(recipe, expected)) << recipe;
    std::printf("%-28s nll %.4f, on the CPU %.4f\n", recipe.c_str(), found, expected);
  }
}

TEST_P(CudaModel, EightBitKeysAndValuesLoseLittle) {
  eval::PerplexityOptions options;
  options.tokens = 1536;
  const auto nll = [&](std::optional<formats::Elem> stored) {
    models::LoadOptions load = on_gpu();
    load.kv_cache = stored;
    models::Model model(path(), load);
    return eval::perplexity(model, nullptr, false, tokenizer(), text(), options).nll;
  };
  const double exact = nll(std::nullopt);
  EXPECT_NEAR(nll(formats::Elem::int8), exact, 0.003);
  EXPECT_NEAR(nll(formats::Elem::e4m3), exact, 0.01);
}

// Prompts in 8 bits: queries and weights too, with and without Hadamard transforms.
TEST_P(CudaModel, AttentionInFp8HasTheNllOfTheCpu) {
  eval::PerplexityOptions options;
  options.tokens = 2048;
  const auto nll = [&](models::LoadOptions load, ops::AttentionMode mode) {
    load.attention = mode;
    models::Model model(path(), load);
    return eval::perplexity(model, nullptr, false, tokenizer(), text(), options).nll;
  };
  const double exact = nll(on_gpu(), ops::AttentionMode::bf16);
  for (const auto mode :
       {ops::AttentionMode::fp8, ops::AttentionMode::fp8_hadamard_v, ops::AttentionMode::fp8_hadamard_qkv}) {
    const double found = nll(on_gpu(), mode), expected = nll({}, mode);
    std::printf("%-18s nll %.4f, on the CPU %.4f, in bf16 %.4f\n", ops::name(mode).data(), found, expected, exact);
    EXPECT_NEAR(found, expected, 0.003) << ops::name(mode);
    EXPECT_NEAR(found, exact, 0.01) << ops::name(mode);
  }
}

// Tokens identical, or at the first difference the CPU's two likeliest logits are neighbours in bf16, or closer than
// 0.05, and both chose one of them.
TEST_P(CudaModel, GreedyAgreesWithTheCpu) {
  models::Model cpu(path(), {}), gpu(path(), on_gpu());
  std::vector<std::int32_t> next = tokenizer().encode(text().substr(0, 400), true);
  models::Cache one(cpu), other(gpu);
  for (int step = 0; step < 512; ++step) {
    const models::Chunk on_cpu{next, &one}, on_device{next, &other};
    cpu.forward({&on_cpu, 1});
    gpu.forward({&on_device, 1});
    const std::int64_t last = cpu.rows() - 1;
    const std::vector<float> logits = cpu.logits({&last, 1});
    std::vector<std::size_t> order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::partial_sort(order.begin(), order.begin() + 2, order.end(),
                      [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
    const auto expected = static_cast<std::int32_t>(order[0]);
    const std::int32_t found = gpu.likeliest({&last, 1}, gpu.config().vocab_size)[0];
    if (found != expected) {
      const float best = logits[order[0]], step_of_bf16 = std::ldexp(1.0f, std::ilogb(best) - 7);
      EXPECT_LE(best - logits[order[1]], std::max(0.05f, step_of_bf16)) << step;
      EXPECT_EQ(found, static_cast<std::int32_t>(order[1])) << step;
      break;
    }
    next = {found};
  }
}

// The logits of the last row, and its likeliest id, whether they come from a recorded step or not.
TEST_P(CudaModel, LikeliestIsTheLargestLogit) {
  models::Model gpu(path(), on_gpu());
  models::Cache first(gpu), second(gpu), third(gpu);
  const std::vector<std::int32_t> ids = tokenizer().encode(text().substr(0, 900), true);
  const std::vector<models::Chunk> prompts = {
      {std::span(ids).first(70), &first}, {std::span(ids).first(1), &second}, {std::span(ids).subspan(5, 20), &third}};
  const std::vector<models::Chunk> singles = {{std::span(ids).subspan(70, 1), &first},
                                              {std::span(ids).subspan(1, 1), &second},
                                              {std::span(ids).subspan(25, 1), &third}};
  for (const auto& batch : {prompts, singles, singles}) {
    gpu.forward(batch);
    std::vector<std::int64_t> rows;
    for (std::int64_t r = gpu.rows(); r-- > 0;) rows.push_back(r);
    const std::int64_t limit = 5000, vocab = gpu.config().vocab_size;
    const std::vector<std::int32_t> ids_of = gpu.likeliest(rows, limit);
    const std::vector<float> logits = gpu.logits(rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto* row = logits.data() + i * static_cast<std::size_t>(vocab);
      EXPECT_EQ(ids_of[i], std::max_element(row, row + limit) - row) << rows[i];
    }
  }
}

// A chunk's rows do not depend on what else runs, nor on how its prompt was cut at pages; a sequence that generates
// does not depend on others while they are as many as one recorded step holds.
TEST_P(CudaModel, BatchAndChunksChangeNothing) {
  models::Model gpu(path(), on_gpu());
  const std::vector<std::int32_t> ids = tokenizer().encode(text().substr(0, 3000), true);
  const std::span<const std::int32_t> all = std::span(ids).first(400);
  const auto last_logits = [&](std::span<const models::Chunk> batch, std::int64_t row) {
    gpu.forward(batch);
    return gpu.logits({&row, 1});
  };
  models::Cache alone(gpu);
  const models::Chunk whole{all, &alone};
  const std::vector<float> expected = last_logits({&whole, 1}, 399);

  models::Cache again(gpu), other(gpu);
  const std::vector<models::Chunk> batch = {{all.subspan(7, 30), &other}, {all, &again}};
  EXPECT_EQ(last_logits(batch, 429), expected);

  models::Cache pieces(gpu);
  const models::Chunk head{all.first(192), &pieces}, tail{all.subspan(192), &pieces};
  gpu.forward({&head, 1});
  EXPECT_EQ(last_logits({&tail, 1}, 207), expected);

  // Decoding: twice the same step, then beside others.
  const std::int32_t token = 17;
  std::vector<std::vector<float>> seen;
  std::vector<models::Cache> others;
  for (int i = 0; i < 7; ++i) others.emplace_back(gpu);
  for (const std::size_t beside : {std::size_t{7}, std::size_t{7}, std::size_t{5}}) {
    std::vector<models::Chunk> step;
    for (std::size_t i = 0; i < beside; ++i) step.push_back({std::span(&ids[i * 3], 1), &others[i]});
    step.push_back({std::span(&token, 1), &again});
    seen.push_back(last_logits(step, static_cast<std::int64_t>(beside)));
    again.truncate(400);
  }
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

// What is chosen on the device is what the sampler chooses from the logits, whether they come from a recorded step or
// not.
TEST_P(CudaModel, ChoicesAreTheSamplers) {
  models::Model gpu(path(), on_gpu());
  std::vector<models::Cache> caches;
  for (int i = 0; i < 5; ++i) caches.emplace_back(gpu);
  const std::vector<std::int32_t> ids = tokenizer().encode(text().substr(0, 900), true);
  const std::int64_t limit = 5000;
  int other = 0, all = 0;
  for (std::size_t step = 0; step < 4; ++step) {
    std::vector<models::Chunk> batch;
    std::vector<std::int64_t> rows;
    std::int64_t row = -1;
    for (std::size_t i = 0; i < caches.size(); ++i) {
      batch.push_back({std::span(ids).subspan(i * 20 + step, step ? 1 : 3 * i + 1), &caches[i]});
      rows.push_back(row += static_cast<std::int64_t>(batch.back().tokens.size()));
    }
    gpu.forward(batch);
    std::vector<engine::Sampling> ways = {{.temperature = 0},
                                          {.temperature = 0.7, .top_p = 0.9, .repetition_penalty = 1.2},
                                          {.top_k = 30, .logit_bias = {{7, 3.0}}},
                                          {.min_p = 0.05, .presence_penalty = 1, .frequency_penalty = 0.5},
                                          {.temperature = 1.3, .top_k = 200, .top_p = 0.8}};
    std::vector<std::vector<kernels::LogitEdit>> edits;
    std::vector<models::TokenChoice> choices;
    const engine::History history{
        .prompt = std::span(ids).first(40), .output = std::span(ids).subspan(40, 30 + step), .vocab_limit = limit};
    for (std::size_t i = 0; i < ways.size(); ++i) {
      ways[i].seed = step * 10 + i;
      edits.push_back(logit_edits(ways[i], history, static_cast<std::size_t>(limit)));
      choices.push_back({.row = rows[i],
                         .temperature = ways[i].temperature,
                         .top_k = ways[i].top_k,
                         .top_p = ways[i].top_p,
                         .min_p = ways[i].min_p,
                         .uniform = engine::uniform(ways[i].seed, history.output.size()),
                         .edits = edits[i]});
    }
    const std::vector<std::int32_t> found = gpu.choose(choices, limit);
    const std::vector<float> logits = gpu.logits(rows);
    const auto vocab = static_cast<std::size_t>(gpu.config().vocab_size);
    std::vector<models::TokenQuestion> questions;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto own = std::span(logits).subspan(i * vocab, vocab);
      ++all;
      other += found[i] != sample(own, ways[i], history).token;
      questions.push_back({.row = rows[i], .token = found[i], .top = 5});
    }
    const std::vector<models::TokenScore> scores = gpu.score(questions, limit);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const engine::Score expected = engine::score(std::span(logits).subspan(i * vocab, vocab), found[i], 5, limit);
      EXPECT_NEAR(scores[i].logprob, expected.logprob, 1e-5);
      EXPECT_EQ(scores[i].rank, expected.rank);
      ASSERT_EQ(scores[i].top.size(), 5u);
      for (std::size_t k = 0; k < 5; ++k) EXPECT_EQ(scores[i].top[k].first, expected.top[k].first);
    }
  }
  EXPECT_LE(other, all / 20);
}

// Logits of some positions of a sequence: of 300 tokens of prompt, then one by one. With a seed the prompt is cut
// anywhere, and up to 63 other sequences take part with prompts and tokens of their own.
using Logits = std::map<std::int64_t, std::vector<float>>;
Logits some_logits(models::Model& model, std::span<const std::int32_t> ids, std::optional<unsigned> seed) {
  std::mt19937 random(seed.value_or(0));
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  models::Cache own(model);
  std::vector<models::Cache> others;
  for (int i = 0; i < 63; ++i) others.emplace_back(model);
  Logits found;
  for (std::size_t at = 0; at < 330;) {
    std::vector<models::Chunk> batch;
    std::size_t tokens = at < 300 ? 300 - at : 1;
    if (seed) {
      if (at < 300) tokens = std::min(tokens, below(3) ? below(150) + 1 : 1);
      const std::size_t count = below(3) ? below(9) : below(64);
      for (std::size_t i = 0; i < count; ++i) {
        if (others[i].length() > 900) others[i].truncate(0);
        const std::size_t begin = below(400);
        batch.push_back({ids.subspan(begin, below(4) || at >= 300 ? 1 : below(40) + 1), &others[i]});
      }
    }
    const std::size_t place = batch.empty() ? 0 : below(batch.size() + 1);
    batch.insert(batch.begin() + static_cast<std::ptrdiff_t>(place), {ids.subspan(at, tokens), &own});
    std::int64_t row = 0;
    for (std::size_t i = 0; i < place; ++i) row += static_cast<std::int64_t>(batch[i].tokens.size());
    model.forward(batch);
    for (std::size_t i = 0; i < tokens; ++i)
      if (const std::size_t position = at + i; position % 37 == 0 || position > 295) {
        const std::int64_t wanted = row + static_cast<std::int64_t>(i);
        found[static_cast<std::int64_t>(position)] = model.logits({&wanted, 1});
      }
    at += tokens;
  }
  return found;
}

TEST_P(CudaModel, InvarianceIsToTheBit) {
  const std::vector<std::int32_t> ids = tokenizer().encode(text().substr(0, 3000), true);
  bool ever_differed = false;
  for (const char* recipe : {"bf16", "int4_g128-bf16", "nvfp4-nvfp4", "fp8-fp8", "mxfp4-fp8"}) {
    const TemporaryFolder folder;
    quantize(recipe, folder.path() + "/out");
    models::LoadOptions options = on_gpu();
    options.invariant = true;
    if (recipe == std::string("fp8-fp8")) options.kv_cache = formats::Elem::e4m3;
    if (recipe == std::string("mxfp4-fp8")) options.attention = ops::AttentionMode::fp8_hadamard_qkv;
    models::Model model(folder.path() + "/out", options);
    const Logits alone = some_logits(model, ids, std::nullopt);
    for (unsigned seed = 1; seed <= 4; ++seed)
      for (const auto& [position, logits] : some_logits(model, ids, seed))
        EXPECT_EQ(logits, alone.at(position)) << recipe << " seed " << seed << " position " << position;
    options.invariant = false;
    models::Model other(folder.path() + "/out", options);
    ever_differed |= some_logits(other, ids, 1) != some_logits(other, ids, std::nullopt);
  }
  EXPECT_TRUE(ever_differed);
  models::LoadOptions options = on_gpu();
  options.invariant = true;
  const TemporaryFolder folder;
  quantize("fp8_tensor-fp8_tensor", folder.path() + "/out");
  EXPECT_THROW(models::Model(folder.path() + "/out", options), Error);
}

TEST_P(CudaModel, RefusesWhatOnlyTheCpuDoes) {
  const auto refused = [&](models::LoadOptions options) {
    try {
      models::Model model(path(), options);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unsupported);
      EXPECT_NE(std::string(e.what()).find("--device cpu"), std::string::npos) << e.what();
      return true;
    }
    return false;
  };
  models::LoadOptions options = on_gpu();
  options.compute = formats::Elem::f32;
  EXPECT_TRUE(refused(options));
  options = on_gpu();
  options.kv_cache = formats::Elem::f32;
  EXPECT_TRUE(refused(options));
  options = on_gpu();
  options.attention = ops::AttentionMode::fp8;
  options.kv_cache = formats::Elem::int8;
  EXPECT_THROW(models::Model(path(), options), Error);
  models::Model gpu(path(), on_gpu());
  EXPECT_THROW(gpu.set_tap(nullptr), Error);
  EXPECT_THROW(gpu.find_linear("model.layers.0.self_attn.q_proj"), Error);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaModel, testing::Values("bookworm-8m", "bookworm-moe-9m"),
                         [](const auto& instance) { return instance.param == "bookworm-8m" ? "dense" : "moe"; });

}  // namespace
}  // namespace lowp
