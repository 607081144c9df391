// Token ids in, token ids out: many sequences through one model, a step at a time. No text, no clock, no threads of its
// own: one caller drives it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lowp/engine/prefix_cache.h"
#include "lowp/engine/request.h"
#include "lowp/engine/sampler.h"
#include "lowp/engine/scheduler.h"
#include "lowp/models/model.h"

namespace lowp::engine {

struct EngineOptions {
  std::int64_t context = 0;       // most tokens of a sequence, prompt and new; 0: max_position_embeddings
  std::int64_t vocab_limit = 0;   // the tokenizer's size: ids from here on never come; 0: the model's vocab_size
  std::size_t max_waiting = 256;  // requests that have not begun
  std::vector<std::int32_t> eos_ids = {};  // end a sequence, beside those of the model's config.json
  std::int64_t kv_pages = 0;  // most pages of keys and values, of models::kPageTokens; 0: that of the device
  bool prefix_cache = false;  // keeps the pages of what was seen, for prompts that begin the same
};

/// What submit() says.
struct Admit {
  enum class Status { accepted, too_long, queue_full, bad_parameter } status = Status::accepted;
  std::string parameter = {};  // bad_parameter: its name
  std::string message = {};    // a sentence, unless accepted
  std::int64_t prompt_tokens = 0, context = 0;
  explicit operator bool() const { return status == Status::accepted; }
};

enum class FinishReason { stop, length, cancelled, error };
std::string_view name(FinishReason reason);

/// A request has its first step, or again its first after it was preempted.
struct Began {
  std::int64_t cached_tokens = 0;  // of its prompt, found in the prefix cache
};
/// Memory was full: what was computed for the request is forgotten, and computed again later. Its tokens stay.
struct Preempted {};
/// A generated token. An id that stops the request is not one.
struct NewToken {
  std::int32_t token = 0;
  std::optional<Score> score = {};  // if asked for
};
/// Once, before the first NewToken, if asked for: scores[i] is of prompt token i + 1.
struct PromptScores {
  std::vector<Score> scores;
};
/// The last event of every request.
struct Finished {
  FinishReason reason = FinishReason::stop;
  std::optional<std::int32_t> stop_id = {};  // stop: the id that came
  std::string message = {};                  // error: why
};
struct Event {
  std::uint64_t id = 0;
  std::variant<Began, Preempted, NewToken, PromptScores, Finished> what;
};

/// Counts since the start, and what is there now.
struct Metrics {
  std::uint64_t waiting = 0, running = 0, cached_tokens = 0;  // now
  std::uint64_t kv_pages = 0, kv_pages_used = 0;              // the bound, if any; held by sequences
  std::uint64_t steps = 0, prompt_tokens = 0, generated_tokens = 0;
  std::uint64_t finished_stop = 0, finished_length = 0, finished_cancelled = 0, finished_error = 0;
  std::uint64_t preemptions = 0, prefix_queries = 0, prefix_hits = 0;  // the last two in tokens of prompts
  std::vector<std::pair<std::string_view, std::uint64_t>> fields() const;
};

class Engine {
 public:
  /// The model must outlive the engine, which alone uses it while a step runs, and with a bound of pages alone at all.
  /// Throws Error(usage) for a context that the model does not have or that does not fit the bound.
  Engine(models::Model& model, EngineOptions options);
  ~Engine();

  /// What submit() would say of a request by itself: whatever the queue and the other ids. From any thread.
  Admit check(const Request& request) const;
  /// Queues a request. A prompt must leave room for one token of the context; one of which nothing but scores is
  /// wanted may be one longer than the context, since its last token is only scored.
  Admit submit(Request request);
  /// Ends a request; the next step says so. False if there is none of that id.
  bool cancel(std::uint64_t id);
  /// Runs what fits the budget through the model, and samples. Never throws for one request's sake: that one ends with
  /// an error. What a request gets does not depend on the others nor on the budget (see Model::forward).
  std::vector<Event> step(const Budget& budget = {});
  /// Nothing to run and no event to tell.
  bool idle() const { return sequences_.empty() && told_.empty(); }

  Metrics metrics() const;
  std::int64_t context() const { return options_.context; }

 private:
  struct Sequence;
  struct Work;
  std::vector<Work> plan(const Budget& budget, std::vector<Event>& events);
  void find_prefixes(const Budget& budget);
  std::int64_t free_pages() const;
  void make_room(std::span<const Work> works);
  Admit admit(const Request& request) const;
  void forward(std::vector<Work>& works);
  void run(std::span<Work> works);
  bool ask_mask(Work& work) const;
  History history(const Work& work) const;
  void choose_on_device(std::vector<Work*>& sampling, std::vector<std::int64_t>& rows);
  void sample(std::span<Work> works);
  std::vector<Score> prompt_scores(const Work& work, std::int64_t row) const;
  void advance(Work& work, std::vector<Event>& events);
  void choose(Work& work, std::vector<Event>& events);
  void finish(Sequence& sequence, Finished how, std::vector<Event>& events);

  models::Model& model_;
  EngineOptions options_;
  PrefixCache prefixes_;
  std::vector<std::unique_ptr<Sequence>> sequences_;  // in order of arrival
  std::vector<Event> told_;                           // by the next step
  // Of the step: the logits of each sequence that samples, one after the other. Kept, since clearing them takes time.
  std::vector<float> logits_;
  std::size_t rows_ = 0;
  Metrics counts_;
};

}  // namespace lowp::engine
