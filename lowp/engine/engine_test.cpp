// The engine over the bundled model: what a request gets is the same whatever else runs, and every request ends.
#include "lowp/engine/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <stdexcept>

#include "lowp/base/error.h"

namespace lowp::engine {
namespace {

models::Model& model() {
  static models::Model loaded(LOWP_SOURCE_DIR "/models/bookworm-8m", {});
  return loaded;
}

std::vector<std::int32_t> prompt(std::size_t length, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids(length);
  for (auto& id : ids) id = static_cast<std::int32_t>(random() % 8000 + 1);
  return ids;
}

Request request(std::uint64_t id, std::size_t length, std::int64_t max_new) {
  Request r;
  r.id = id;
  r.prompt = prompt(length, static_cast<unsigned>(id));
  r.max_new_tokens = max_new;
  r.ignore_eos = true;
  return r;
}

// All that came for one request.
struct Result {
  std::vector<std::int32_t> tokens;
  std::vector<float> logprobs, prompt_logprobs;
  std::vector<std::pair<std::int32_t, float>> top;
  std::optional<Finished> end;
  bool operator==(const Result& other) const {
    return tokens == other.tokens && logprobs == other.logprobs && prompt_logprobs == other.prompt_logprobs &&
           top == other.top && end.has_value() == other.end.has_value() && (!end || end->reason == other.end->reason);
  }
};
using Results = std::map<std::uint64_t, Result>;

void note(const std::vector<Event>& events, Results& results) {
  for (const Event& event : events) {
    Result& result = results[event.id];
    EXPECT_FALSE(result.end) << "an event after the last one";
    if (const auto* token = std::get_if<NewToken>(&event.what)) {
      result.tokens.push_back(token->token);
      if (token->score) {
        EXPECT_EQ(token->score->token, token->token);
        result.logprobs.push_back(token->score->logprob);
        result.top.insert(result.top.end(), token->score->top.begin(), token->score->top.end());
      }
    } else if (const auto* scores = std::get_if<PromptScores>(&event.what)) {
      EXPECT_TRUE(result.tokens.empty() && result.prompt_logprobs.empty());
      for (const Score& s : scores->scores) result.prompt_logprobs.push_back(s.logprob);
    } else if (const auto* end = std::get_if<Finished>(&event.what)) {
      result.end = *end;
    }
  }
}

Results drain(Engine& engine, const Budget& budget = {}) {
  Results results;
  for (int i = 0; i < 5000 && !engine.idle(); ++i) note(engine.step(budget), results);
  EXPECT_TRUE(engine.idle());
  return results;
}

Result alone(const Request& r, const Budget& budget = {}) {
  Engine engine(model(), {});
  EXPECT_TRUE(engine.submit(r));
  return drain(engine, budget).at(r.id);
}

// Greedy, seeded, penalized, scored: one of each kind.
std::vector<Request> varied() {
  std::vector<Request> all;
  for (const std::size_t length : {1u, 40u, 7u, 130u, 65u}) all.push_back(request(all.size() + 1, length, 12));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].sampling.temperature = i % 2 ? 0.9 : 0;
    all[i].sampling.seed = i;
    all[i].logprobs = 3;
    if (i > 1) all[i].prompt_logprobs = 0;
  }
  all[1].sampling.top_p = 0.9;
  all[3].sampling.repetition_penalty = 1.2;
  return all;
}

TEST(Engine, ABatchChangesNothing) {
  const std::vector<Request> requests = varied();
  Results expected;
  for (const Request& r : requests) {
    expected[r.id] = alone(r);
    EXPECT_EQ(expected[r.id].tokens.size(), 12u);
    EXPECT_EQ(expected[r.id].logprobs.size(), 12u);
    EXPECT_EQ(expected[r.id].top.size(), 36u);
    EXPECT_EQ(expected[r.id].prompt_logprobs.size(), r.prompt_logprobs ? r.prompt.size() - 1 : 0);
    EXPECT_EQ(expected[r.id].end->reason, FinishReason::length);
  }
  for (const Budget& budget : {Budget{}, Budget{.tokens = 7}, Budget{.tokens = 33, .sequences = 2}}) {
    Engine engine(model(), {});
    for (const Request& r : requests) ASSERT_TRUE(engine.submit(r));
    const Results together = drain(engine, budget);
    for (const Request& r : requests)
      EXPECT_TRUE(together.at(r.id) == expected.at(r.id)) << "request " << r.id << ", budget " << budget.tokens;
  }
}

TEST(Engine, ChunksChangeNothing) {
  const Request r = varied()[3];
  const Result whole = alone(r);
  for (const std::int64_t tokens : {1, 19, 64}) EXPECT_TRUE(alone(r, {.tokens = tokens}) == whole) << tokens;
}

TEST(Engine, LateArrivalsChangeNothing) {
  const std::vector<Request> requests = varied();
  const Result expected = alone(requests[1]);
  Engine engine(model(), {});
  Results results;
  std::size_t next = 0;
  for (int step = 0; step < 500 && (next < requests.size() || !engine.idle()); ++step) {
    if (step % 3 == 0 && next < requests.size()) ASSERT_TRUE(engine.submit(requests[next++]));
    note(engine.step({.tokens = 24}), results);
  }
  EXPECT_TRUE(results.at(2) == expected);
  EXPECT_EQ(engine.metrics().finished_length, requests.size());
  EXPECT_EQ(engine.metrics().running + engine.metrics().waiting + engine.metrics().cached_tokens, 0u);
}

TEST(Engine, ScoresAgreeWithTheModel) {
  Request r = request(1, 20, 4);
  r.sampling.temperature = 0;
  r.logprobs = 1;
  r.prompt_logprobs = 0;
  const Result result = alone(r);
  std::vector<std::int32_t> ids = r.prompt;
  ids.insert(ids.end(), result.tokens.begin(), result.tokens.end());
  models::Cache cache(model());
  const models::Chunk chunk{ids, &cache};
  model().forward({&chunk, 1});
  const auto logits = model().logits();
  const auto vocab = static_cast<std::size_t>(model().config().vocab_size);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const Score s = score(std::span(logits).subspan(i * vocab, vocab), ids[i + 1], 0);
    EXPECT_EQ(s.logprob, i < 19 ? result.prompt_logprobs[i] : result.logprobs[i - 19]) << i;
    if (i >= 19) EXPECT_EQ(s.rank, 1);
  }
}

TEST(Engine, StopIdsEndWithoutBeingTokens) {
  Request r = request(1, 9, 20);
  r.sampling.temperature = 0;
  const Result free = alone(r);
  const std::int32_t stop = free.tokens[5];
  const auto first =
      static_cast<std::size_t>(std::find(free.tokens.begin(), free.tokens.end(), stop) - free.tokens.begin());
  r.stop_ids = {stop};
  const Result stopped = alone(r);
  EXPECT_EQ(stopped.end->reason, FinishReason::stop);
  EXPECT_EQ(stopped.end->stop_id, stop);
  EXPECT_EQ(stopped.tokens, std::vector(free.tokens.begin(), free.tokens.begin() + static_cast<std::ptrdiff_t>(first)));

  r.min_tokens = static_cast<std::int64_t>(first) + 1;  // it cannot come there, and is avoided
  const Result later = alone(r);
  EXPECT_GT(later.tokens.size(), first);
  EXPECT_EQ(std::count(later.tokens.begin(), later.tokens.end(), stop), 0);

  r.stop_ids.clear();
  r.min_tokens = 0;
  Engine engine(model(), {.eos_ids = {stop}});  // as an id of generation_config.json
  r.ignore_eos = false;
  ASSERT_TRUE(engine.submit(r));
  EXPECT_EQ(drain(engine).at(1).end->reason, FinishReason::stop);
  r.ignore_eos = true;
  ASSERT_TRUE(engine.submit(r));
  EXPECT_EQ(drain(engine).at(1).tokens, free.tokens);
}

TEST(Engine, VocabularyLimit) {
  Engine engine(model(), {.vocab_limit = 50});
  Request r = request(1, 5, 30);
  r.logprobs = 60;
  ASSERT_TRUE(engine.submit(r));
  const Results results = drain(engine);
  for (const std::int32_t token : results.at(1).tokens) EXPECT_LT(token, 50);
  EXPECT_EQ(results.at(1).top.size(), 30u * 50u);
}

TEST(Engine, LengthsAreCappedOrRefused) {
  Engine engine(model(), {.context = 32});
  EXPECT_EQ(engine.context(), 32);
  ASSERT_TRUE(engine.submit(request(1, 30, 100)));
  ASSERT_TRUE(engine.submit(request(2, 31, 100)));
  for (const std::size_t length : {32u, 33u, 5000u}) {
    const Admit refused = engine.submit(request(3, length, 1));
    EXPECT_EQ(refused.status, Admit::Status::too_long);
    EXPECT_EQ(refused.prompt_tokens, static_cast<std::int64_t>(length));
    EXPECT_EQ(refused.context, 32);
    EXPECT_NE(refused.message.find(std::to_string(length)), std::string::npos);
    EXPECT_NE(refused.message.find("32"), std::string::npos);
  }
  Request scored = request(4, 32, 0);  // nothing new is wanted
  scored.prompt_logprobs = 0;
  ASSERT_TRUE(engine.submit(scored));
  const Results results = drain(engine);
  EXPECT_EQ(results.at(1).tokens.size(), 2u);
  EXPECT_EQ(results.at(2).tokens.size(), 1u);
  EXPECT_EQ(results.at(4).tokens.size(), 0u);
  EXPECT_EQ(results.at(4).prompt_logprobs.size(), 31u);
  for (const auto& [id, result] : results) EXPECT_EQ(result.end->reason, FinishReason::length) << id;
  EXPECT_THROW(Engine(model(), {.context = 1025}), Error);
  EXPECT_THROW(Engine(model(), {.context = -1}), Error);
}

TEST(Engine, BadRequestsAreNamed) {
  Engine engine(model(), {.max_waiting = 2});
  const auto parameter = [&](auto change) {
    Request r = request(9, 3, 5);
    change(r);
    const Admit admit = engine.submit(r);
    EXPECT_EQ(admit.status, Admit::Status::bad_parameter);
    EXPECT_EQ(admit.message.find(admit.parameter), 0u) << admit.message;
    return admit.parameter;
  };
  EXPECT_EQ(parameter([](Request& r) { r.prompt.clear(); }), "prompt");
  EXPECT_EQ(parameter([](Request& r) { r.prompt[1] = 8192; }), "prompt");
  EXPECT_EQ(parameter([](Request& r) { r.prompt[1] = -1; }), "prompt");
  EXPECT_EQ(parameter([](Request& r) { r.max_new_tokens = -1; }), "max_new_tokens");
  EXPECT_EQ(parameter([](Request& r) { r.min_tokens = 6; }), "min_tokens");
  EXPECT_EQ(parameter([](Request& r) { r.logprobs = -1; }), "logprobs");
  EXPECT_EQ(parameter([](Request& r) { r.prompt_logprobs = -1; }), "prompt_logprobs");
  EXPECT_EQ(parameter([](Request& r) { r.sampling.temperature = -1; }), "temperature");
  EXPECT_EQ(parameter([](Request& r) { r.sampling.top_p = std::nan(""); }), "top_p");
  EXPECT_TRUE(engine.idle());
  ASSERT_TRUE(engine.submit(request(9, 3, 5)));
  EXPECT_EQ(parameter([](Request&) {}), "id");
  ASSERT_TRUE(engine.submit(request(10, 3, 5)));
  EXPECT_EQ(engine.submit(request(11, 3, 5)).status, Admit::Status::queue_full);
  EXPECT_EQ(drain(engine).size(), 2u);
  ASSERT_TRUE(engine.submit(request(9, 3, 5)));  // an id is free again once its request ended
}

TEST(Engine, CancelInEveryState) {
  Request other = request(1, 30, 25);
  other.sampling.temperature = 0;
  const Result expected = alone(other);
  for (int steps = 0; steps < 12; ++steps) {  // waiting, in its prompt, generating, ended
    Engine engine(model(), {});
    ASSERT_TRUE(engine.submit(other));
    ASSERT_TRUE(engine.submit(request(2, 60, 3)));
    Results results;
    for (int i = 0; i < steps; ++i) note(engine.step({.tokens = 16}), results);
    const bool ended = results[2].end.has_value();
    EXPECT_EQ(engine.cancel(2), !ended);
    EXPECT_FALSE(engine.cancel(2));
    EXPECT_FALSE(engine.idle());
    while (!engine.idle()) note(engine.step({.tokens = 16}), results);
    EXPECT_EQ(results.at(2).end->reason, ended ? FinishReason::length : FinishReason::cancelled) << steps;
    EXPECT_TRUE(results.at(1) == expected) << steps;
  }
  Engine engine(model(), {});
  EXPECT_FALSE(engine.cancel(5));
  ASSERT_TRUE(engine.submit(request(5, 4, 4)));
  EXPECT_TRUE(engine.cancel(5));
  EXPECT_FALSE(engine.idle());
  EXPECT_EQ(engine.step({.tokens = 0}).size(), 1u);
  EXPECT_TRUE(engine.idle());
  EXPECT_TRUE(engine.step().empty());
}

// Allows odd ids only; throws once it has seen enough.
struct OddMask : TokenMask {
  int accepted = 0, limit = 1000;
  bool nothing = false;
  void allowed(std::span<std::uint32_t> words) override {
    if (accepted == limit) throw std::runtime_error("the grammar broke");
    if (!nothing) std::fill(words.begin(), words.end(), 0xAAAAAAAAu);
  }
  void accept(std::int32_t) override { ++accepted; }
};

TEST(Engine, MasksConstrainAndTheirFailuresAreTheirs) {
  const Result expected = alone(request(4, 12, 6));
  Engine engine(model(), {});
  std::vector<std::shared_ptr<OddMask>> masks(3);
  for (std::size_t i = 0; i < 3; ++i) {
    masks[i] = std::make_shared<OddMask>();
    Request r = request(i + 1, 5, 6);
    r.mask = masks[i];
    ASSERT_TRUE(engine.submit(r));
  }
  masks[1]->limit = 2;
  masks[2]->nothing = true;
  ASSERT_TRUE(engine.submit(request(4, 12, 6)));
  const Results results = drain(engine);
  EXPECT_EQ(results.at(1).tokens.size(), 6u);
  for (const std::int32_t token : results.at(1).tokens) EXPECT_EQ(token % 2, 1);
  EXPECT_EQ(results.at(2).tokens.size(), 2u);
  EXPECT_EQ(results.at(2).end->reason, FinishReason::error);
  EXPECT_EQ(results.at(2).end->message, "the grammar broke");
  EXPECT_EQ(results.at(3).end->reason, FinishReason::error);
  EXPECT_TRUE(results.at(4) == expected);
  EXPECT_EQ(engine.metrics().finished_error, 2u);
}

TEST(Engine, AFailureInTheModelEndsOneRequest) {
  const Result expected = alone(request(1, 12, 8));
  Engine engine(model(), {});
  ASSERT_TRUE(engine.submit(request(1, 12, 8)));
  ASSERT_TRUE(engine.submit(request(2, 90, 8)));
  // Half way through the layers the model fails on any batch with more than 80 rows.
  model().set_tap([](const std::string& module, std::span<const float> input, std::int64_t k, std::span<const float>,
                     std::int64_t) {
    if (module == "model.layers.4.mlp.up_proj" && static_cast<std::int64_t>(input.size()) > 80 * k)
      throw std::bad_alloc();
  });
  const Results results = drain(engine);
  model().set_tap(nullptr);
  EXPECT_TRUE(results.at(1) == expected);
  EXPECT_TRUE(results.at(2).tokens.empty());
  EXPECT_EQ(results.at(2).end->reason, FinishReason::error);
  EXPECT_NE(results.at(2).end->message, "");
}

TEST(Engine, MetricsCount) {
  Engine engine(model(), {});
  for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(engine.submit(request(id, 10, 2)));
  EXPECT_EQ(engine.metrics().waiting, 3u);
  engine.step({.tokens = 15});
  EXPECT_EQ(engine.metrics().running, 2u);
  EXPECT_EQ(engine.metrics().waiting, 1u);
  EXPECT_EQ(engine.metrics().cached_tokens, 15u);
  drain(engine);
  const Metrics m = engine.metrics();
  EXPECT_EQ(m.prompt_tokens, 30u);
  EXPECT_EQ(m.generated_tokens, 6u);
  EXPECT_EQ(m.finished_length, 3u);
  EXPECT_EQ(m.fields().size(), 15u);
}

TEST(Engine, LittleMemoryChangesNothing) {
  std::vector<Request> requests;
  for (std::uint64_t id = 1; id <= 8; ++id) {
    requests.push_back(request(id, 20 + 30 * id, 120));
    requests.back().sampling.temperature = id % 2 ? 0.8 : 0;
    if (id > 4) requests.back().prompt_logprobs = 1;
  }
  Results expected;
  for (const Request& r : requests) expected[r.id] = alone(r);
  for (const bool prefix_cache : {false, true}) {
    Engine engine(model(), {.kv_pages = 9, .prefix_cache = prefix_cache});
    EXPECT_EQ(engine.context(), 9 * 64);
    for (const Request& r : requests) ASSERT_TRUE(engine.submit(r));
    const Results together = drain(engine, {.tokens = 100});
    for (const Request& r : requests) EXPECT_TRUE(together.at(r.id) == expected.at(r.id)) << "request " << r.id;
    EXPECT_GT(engine.metrics().preemptions, 0u);
    EXPECT_EQ(engine.metrics().kv_pages_used, 0u);
  }
  EXPECT_EQ(model().kv_pool()->used(), 0u);
  EXPECT_THROW(Engine(model(), {.context = 577, .kv_pages = 9}), Error);
}

TEST(Engine, PrefixesAreFoundAndChangeNothing) {
  Request first = request(1, 300, 40);
  first.sampling.temperature = 0;
  const Result expected = alone(first);
  Engine engine(model(), {.kv_pages = 100, .prefix_cache = true});
  ASSERT_TRUE(engine.submit(first));
  drain(engine);
  ASSERT_TRUE(engine.submit(first));
  EXPECT_TRUE(drain(engine).at(1) == expected);
  EXPECT_EQ(engine.metrics().prefix_hits, 256u);

  Request more = first;  // its prompt goes on where the first one's answer did
  more.id = 2;
  more.prompt.insert(more.prompt.end(), expected.tokens.begin(), expected.tokens.end());
  const Result alone_more = alone(more);
  ASSERT_TRUE(engine.submit(more));
  EXPECT_TRUE(drain(engine).at(2) == alone_more);
  EXPECT_EQ(engine.metrics().prefix_hits, 256u + 320u);

  Request salted = first;
  salted.prefix_salt = "another user";
  ASSERT_TRUE(engine.submit(salted));
  EXPECT_TRUE(drain(engine).at(1) == expected);
  EXPECT_EQ(engine.metrics().prefix_hits, 256u + 320u);

  Request scored = first;  // needs every position
  scored.prompt_logprobs = 0;
  const Result with_scores = alone(scored);
  ASSERT_TRUE(engine.submit(scored));
  EXPECT_TRUE(drain(engine).at(1) == with_scores);

  for (std::uint64_t id = 3; id < 40; ++id) ASSERT_TRUE(engine.submit(request(id, 500, 2)));  // push them out
  drain(engine);
  EXPECT_LE(model().kv_pool()->used(), 100u);
  const std::uint64_t hits = engine.metrics().prefix_hits;
  ASSERT_TRUE(engine.submit(first));
  EXPECT_TRUE(drain(engine).at(1) == expected);
  EXPECT_EQ(engine.metrics().prefix_hits, hits);
}

TEST(Engine, SharedPrefixesBeginTogether) {
  Engine engine(model(), {.prefix_cache = true});
  Request r = request(1, 400, 30);
  ASSERT_TRUE(engine.submit(r));
  Results results;
  for (int i = 0; i < 3; ++i) note(engine.step(), results);
  for (std::uint64_t id = 2; id < 10; ++id) {
    r.id = id;
    ASSERT_TRUE(engine.submit(r));
  }
  note(engine.step(), results);  // what is left of their prompts fits one step
  EXPECT_EQ(engine.metrics().running, 9u);
  while (!engine.idle()) note(engine.step(), results);
  for (std::uint64_t id = 2; id < 10; ++id) EXPECT_TRUE(results.at(id) == results.at(1)) << id;
}

TEST(Engine, APromptOneLongerThanTheContextIsOnlyScored) {
  Engine engine(model(), {.context = 100});
  Request r = request(1, 101, 0);
  r.prompt_logprobs = 0;
  ASSERT_TRUE(engine.submit(r));
  const Result scored = drain(engine).at(1);
  EXPECT_EQ(scored.prompt_logprobs.size(), 100u);
  EXPECT_EQ(scored.end->reason, FinishReason::length);
  r.prompt.resize(102, 1);
  EXPECT_EQ(engine.submit(r).status, Admit::Status::too_long);
  r.prompt.resize(101);
  r.max_new_tokens = 1;
  EXPECT_EQ(engine.submit(r).status, Admit::Status::too_long);
  r.prompt = {5};
  r.max_new_tokens = 0;
  ASSERT_TRUE(engine.submit(r));
  EXPECT_EQ(drain(engine).at(1).end->reason, FinishReason::length);
}

}  // namespace
}  // namespace lowp::engine
