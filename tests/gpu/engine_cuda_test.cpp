// The engine over a model on the GPU: requests end as they should, and leak nothing.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "lowp/base/error.h"
#include "lowp/engine/engine.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/models/shapes.h"
#include "tests/gpu/source_folder.h"

namespace lowp::engine {
namespace {

class CudaEngine : public testing::Test {
 protected:
  void SetUp() override {
    if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
  }
  static models::Model& model() {
    static models::Model loaded(source_folder() + "/models/bookworm-8m", options());
    return loaded;
  }
  static models::LoadOptions options() {
    models::LoadOptions on_gpu;
    on_gpu.device.cuda = 0;
    return on_gpu;
  }
  static Request request(std::uint64_t id, std::size_t length, std::int64_t max_new) {
    std::mt19937 random(static_cast<unsigned>(id));
    Request r{.id = id, .max_new_tokens = max_new, .ignore_eos = true};
    for (std::size_t i = 0; i < length; ++i) r.prompt.push_back(static_cast<std::int32_t>(random() % 8000 + 1));
    r.sampling.temperature = 0;
    return r;
  }
  struct Result {
    std::vector<std::int32_t> tokens;
    std::optional<Finished> end;
  };
  static std::map<std::uint64_t, Result> drain(Engine& engine, const Budget& budget = {}) {
    std::map<std::uint64_t, Result> results;
    for (int i = 0; i < 20000 && !engine.idle(); ++i)
      for (const Event& event : engine.step(budget)) {
        if (const auto* token = std::get_if<NewToken>(&event.what)) results[event.id].tokens.push_back(token->token);
        if (const auto* end = std::get_if<Finished>(&event.what)) results[event.id].end = *end;
      }
    EXPECT_TRUE(engine.idle());
    return results;
  }
};

TEST_F(CudaEngine, ManySequencesEndWithTheirLengths) {
  Engine engine(model(), {.prefix_cache = true});
  for (std::uint64_t id = 1; id <= 40; ++id)
    ASSERT_TRUE(engine.submit(request(id, 1 + id * 11, static_cast<std::int64_t>(3 + id))));
  const auto results = drain(engine, {.tokens = 300, .sequences = 40});
  for (std::uint64_t id = 1; id <= 40; ++id) {
    EXPECT_EQ(results.at(id).end->reason, FinishReason::length) << id;
    EXPECT_EQ(results.at(id).tokens.size(), 3 + id);
  }
  EXPECT_EQ(engine.metrics().kv_pages_used, 0u);
}

TEST_F(CudaEngine, ARunRepeatsItself) {
  const auto run = [] {
    Engine engine(model(), {});
    for (std::uint64_t id = 1; id <= 12; ++id) {
      Request r = request(id, 20 * id, 30);
      r.sampling.temperature = id % 3 ? 0 : 0.9;
      r.sampling.seed = id;
      if (id % 2) r.sampling.top_p = 0.8;
      if (id % 5 == 0) r.sampling.top_k = 40;
      if (id % 7 == 0) r.sampling.repetition_penalty = 1.2;
      if (id % 6 == 0) r.logprobs = 3;
      if (id == 3) r.min_tokens = 5;
      if (id % 4 == 0) r.prompt_logprobs = 1;
      EXPECT_TRUE(engine.submit(std::move(r)));
    }
    std::vector<std::int32_t> all;
    for (const auto& [id, result] : drain(engine)) all.insert(all.end(), result.tokens.begin(), result.tokens.end());
    return all;
  };
  EXPECT_EQ(run(), run());
}

TEST_F(CudaEngine, CancelInEveryState) {
  for (int steps = 0; steps < 12; ++steps) {
    Engine engine(model(), {});
    ASSERT_TRUE(engine.submit(request(1, 30, 25)));
    ASSERT_TRUE(engine.submit(request(2, 60, 3)));
    std::map<std::uint64_t, FinishReason> ended;
    const auto step = [&] {
      for (const Event& event : engine.step({.tokens = 16}))
        if (const auto* end = std::get_if<Finished>(&event.what)) ended[event.id] = end->reason;
    };
    for (int i = 0; i < steps; ++i) step();
    const bool over = ended.contains(2);
    EXPECT_EQ(engine.cancel(2), !over);
    while (!engine.idle()) step();
    EXPECT_EQ(ended.at(2), over ? FinishReason::length : FinishReason::cancelled) << steps;
    EXPECT_EQ(ended.at(1), FinishReason::length);
  }
  EXPECT_EQ(model().kv_pool()->used(), 0u);
}

TEST_F(CudaEngine, TooLongIsRefusedAndLittleMemoryEndsWell) {
  EXPECT_EQ(Engine(model(), {.context = 32}).submit(request(3, 32, 1)).status, Admit::Status::too_long);
  EXPECT_THROW(Engine(model(), {.context = 1025}), Error);
  Engine engine(model(), {.kv_pages = 9, .prefix_cache = true});
  for (std::uint64_t id = 1; id <= 8; ++id) ASSERT_TRUE(engine.submit(request(id, 20 + 30 * id, 120)));
  for (const auto& [id, result] : drain(engine, {.tokens = 100})) {
    EXPECT_EQ(result.end->reason, FinishReason::length) << id << ": " << result.end->message;
    EXPECT_EQ(result.tokens.size(), 120u);
  }
  EXPECT_GT(engine.metrics().preemptions, 0u);
  EXPECT_EQ(engine.metrics().kv_pages_used, 0u);
}

TEST_F(CudaEngine, RandomSubmitsAndCancelsLeakNothing) {
  Engine engine(model(), {.max_waiting = 20, .prefix_cache = false});
  std::mt19937 random(7);
  std::set<std::uint64_t> open;
  std::uint64_t next = 1;
  std::size_t submitted = 0, finished = 0;
  for (int i = 0; i < 4000; ++i) {
    if (random() % 2 && engine.submit(request(next, 1 + random() % 90, static_cast<std::int64_t>(random() % 8)))) {
      open.insert(next++);
      ++submitted;
    }
    if (random() % 3 == 0 && !open.empty())
      engine.cancel(*std::next(open.begin(), static_cast<long>(random() % open.size())));
    if (random() % 2)
      for (const Event& event : engine.step({.tokens = 64, .sequences = 12}))
        if (std::holds_alternative<Finished>(event.what)) {
          EXPECT_EQ(open.erase(event.id), 1u);
          ++finished;
        }
  }
  finished += drain(engine).size();
  EXPECT_EQ(finished, submitted);
  EXPECT_EQ(model().kv_pool()->used(), 0u);
}

TEST_F(CudaEngine, WhatDoesNotFitIsNamed) {
  models::Config config = models::shape("llama-3.1-8b");
  config.num_hidden_layers = 1000;  // 436 GB
  config.window.resize(1000);
  try {
    models::Model model(config, formats::recipe("bf16"), options());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::io);
    EXPECT_NE(std::string(e.what()).find("allocating"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace lowp::engine
