#include "lowp/engine/engine.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <numeric>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"

namespace lowp::engine {

struct Engine::Sequence {
  Request request;                   // its prompt moved to `tokens`
  std::vector<std::int32_t> tokens;  // prompt, then output
  std::size_t prompt = 0;            // tokens of the prompt
  std::int64_t max_new = 0;
  std::vector<std::int32_t> stop_ids;
  std::optional<models::Cache> cache;  // once begun, or while it might in this step
  PrefixCache::Path prefix;            // of the pages in the cache
  bool begun = false;
  std::vector<Score> scores;  // of the prompt, so far
  bool scored = false;        // they were told
  std::uint64_t waits_since = 0;
  bool finished = false;

  std::int64_t seen() const { return cache ? cache->length() : 0; }
  // Tokens that the model must see. If nothing follows the last one it is only scored.
  std::int64_t known() const { return static_cast<std::int64_t>(tokens.size()) - (max_new == 0 ? 1 : 0); }
  std::int64_t pending() const { return known() - seen(); }
  bool generating() const { return begun && tokens.size() > prompt && pending() == 1; }
  void forget() {
    prefix = {};
    cache.reset();
    begun = false;
  }
  std::span<const std::int32_t> output() const { return std::span(tokens).subspan(prompt); }
};

// A sequence's part in one step.
struct Engine::Work {
  Sequence* sequence = nullptr;
  std::int64_t first = 0, tokens = 0;  // the tokens [first, first + tokens) of the sequence
  std::vector<Score> scores = {};      // of the prompt tokens that follow those of this step
  // If its last token is the last one known: what may come next, and the token, if the model chose it, else its row of
  // the step's logits.
  std::vector<std::uint32_t> allowed = {};
  std::optional<std::int32_t> token = {};
  std::size_t row = 0;
  Sample chosen = {};  // the next token, and if it is wanted its score
  std::optional<Score> score = {};
  std::string error = {};

  bool complete() const { return first + tokens == sequence->known(); }
  bool samples() const { return complete() && sequence->max_new > 0; }
};

namespace {

Admit refuse(const char* parameter, std::string message) {
  return {.status = Admit::Status::bad_parameter,
          .parameter = parameter,
          .message = fmt::format("{}: {}", parameter, message)};
}

// In place: g++ 12 warns of moves of a variant that never happen.
template <typename What>
void tell(std::vector<Event>& events, std::uint64_t id, What what) {
  Event& event = events.emplace_back();
  event.id = id;
  event.what.template emplace<What>(std::move(what));
}

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::error:
      return "error";
  }
  return "";
}

std::vector<std::pair<std::string_view, std::uint64_t>> Metrics::fields() const {
  return {{"waiting", waiting},
          {"running", running},
          {"cached_tokens", cached_tokens},
          {"steps", steps},
          {"prompt_tokens", prompt_tokens},
          {"generated_tokens", generated_tokens},
          {"finished_stop", finished_stop},
          {"finished_length", finished_length},
          {"finished_cancelled", finished_cancelled},
          {"finished_error", finished_error},
          {"kv_pages", kv_pages},
          {"kv_pages_used", kv_pages_used},
          {"preemptions", preemptions},
          {"prefix_queries", prefix_queries},
          {"prefix_hits", prefix_hits}};
}

Engine::Engine(models::Model& model, EngineOptions options) : model_(model), options_(std::move(options)) {
  const models::Config& config = model.config();
  const std::int64_t most = config.max_position_embeddings;
  if (options_.kv_pages == 0) options_.kv_pages = model.kv_pool()->most();
  if (options_.context < 0 || options_.context > most)
    fail(ErrorCode::usage, "a context of {} tokens: the model has {}", options_.context, most);
  const std::int64_t fits = options_.kv_pages > 0 ? options_.kv_pages * models::kPageTokens : most;
  if (options_.context > fits)
    fail(ErrorCode::usage, "a context of {} tokens: {} pages have room for {}", options_.context, options_.kv_pages,
         fits);
  if (options_.context == 0) options_.context = std::min(most, fits);
  if (options_.vocab_limit <= 0 || options_.vocab_limit > config.vocab_size) options_.vocab_limit = config.vocab_size;
  options_.eos_ids.insert(options_.eos_ids.end(), config.eos_ids.begin(), config.eos_ids.end());
}

Engine::~Engine() = default;

Admit Engine::check(const Request& r) const {
  if (r.prompt.empty()) return refuse("prompt", "is empty");
  for (const std::int32_t id : r.prompt)
    if (id < 0 || id >= model_.config().vocab_size)
      return refuse("prompt", fmt::format("token id {} is not one of the model's {}", id, model_.config().vocab_size));
  if (r.max_new_tokens < 0)
    return refuse("max_new_tokens", fmt::format("expected a count, found {}", r.max_new_tokens));
  if (r.min_tokens < 0 || r.min_tokens > r.max_new_tokens)
    return refuse("min_tokens",
                  fmt::format("expected up to max_new_tokens ({}), found {}", r.max_new_tokens, r.min_tokens));
  if (r.logprobs.value_or(0) < 0) return refuse("logprobs", fmt::format("expected a count, found {}", *r.logprobs));
  if (r.prompt_logprobs.value_or(0) < 0)
    return refuse("prompt_logprobs", fmt::format("expected a count, found {}", *r.prompt_logprobs));
  if (const auto bad = engine::check(r.sampling))
    return {.status = Admit::Status::bad_parameter, .parameter = bad->name, .message = bad->message};

  const auto length = static_cast<std::int64_t>(r.prompt.size());
  if (length + (r.max_new_tokens > 0 ? 1 : -1) > options_.context)
    return {.status = Admit::Status::too_long,
            .parameter = "prompt",
            .message = fmt::format("the prompt has {} tokens and the context {}{}", length, options_.context,
                                   length == options_.context ? ": no room for another" : ""),
            .prompt_tokens = length,
            .context = options_.context};
  return {.prompt_tokens = length, .context = options_.context};
}

Admit Engine::admit(const Request& r) const {
  const auto same_id = [&](const auto& sequence) { return sequence->request.id == r.id; };
  if (std::any_of(sequences_.begin(), sequences_.end(), same_id))
    return refuse("id", fmt::format("{} is in use", r.id));
  const Admit answer = check(r);
  if (!answer) return answer;
  const auto waiting = std::count_if(sequences_.begin(), sequences_.end(), [](const auto& s) { return !s->begun; });
  if (static_cast<std::size_t>(waiting) >= options_.max_waiting)
    return {.status = Admit::Status::queue_full, .message = fmt::format("{} requests are waiting already", waiting)};
  return answer;
}

Admit Engine::submit(Request request) {
  Admit answer = admit(request);
  if (!answer) return answer;
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = std::exchange(request.prompt, {});
  sequence->prompt = sequence->tokens.size();
  if (request.max_new_tokens > 0)
    sequence->max_new =
        std::min(request.max_new_tokens, options_.context - static_cast<std::int64_t>(sequence->prompt));
  sequence->stop_ids = request.stop_ids;
  if (!request.ignore_eos)
    sequence->stop_ids.insert(sequence->stop_ids.end(), options_.eos_ids.begin(), options_.eos_ids.end());
  sequence->waits_since = counts_.steps;
  sequence->request = std::move(request);
  sequences_.push_back(std::move(sequence));
  return answer;
}

bool Engine::cancel(std::uint64_t id) {
  const auto at =
      std::find_if(sequences_.begin(), sequences_.end(), [&](const auto& s) { return s->request.id == id; });
  if (at == sequences_.end()) return false;
  finish(**at, {.reason = FinishReason::cancelled}, told_);
  sequences_.erase(at);
  return true;
}

std::vector<Event> Engine::step(const Budget& budget) {
  std::vector<Event> events = std::exchange(told_, {});
  ++counts_.steps;
  std::vector<Work> works = plan(budget, events);
  make_room(works);
  forward(works);
  sample(works);
  for (Work& work : works) advance(work, events);
  std::erase_if(sequences_, [](const auto& s) { return s->finished; });
  return events;
}

std::vector<Engine::Work> Engine::plan(const Budget& budget, std::vector<Event>& events) {
  std::vector<Work> works;
  for (auto at = sequences_.begin(); at != sequences_.end();) {  // a prompt of one token may have nothing to run
    Sequence& s = **at;
    if (s.known() > 0) {
      ++at;
      continue;
    }
    tell(events, s.request.id, Began{});
    if (s.request.prompt_logprobs) tell(events, s.request.id, PromptScores{});
    finish(s, {.reason = FinishReason::length}, events);
    at = sequences_.erase(at);
  }
  find_prefixes(budget);
  const auto ask = [&] {
    std::vector<Progress> progress;
    for (const auto& s : sequences_)
      progress.push_back({.pending = s->pending(),
                          .begun = s->begun,
                          .generating = s->generating(),
                          .waits_since = s->waits_since,
                          .seen = s->seen(),
                          .pages = s->cache ? static_cast<std::int64_t>(s->cache->pages().size()) : 0});
    return schedule(progress, budget, {.page_tokens = models::kPageTokens, .free_pages = free_pages()});
  };
  Plan plan = ask();
  for (; plan.preempt; plan = ask()) {
    Sequence& sequence = *sequences_[*plan.preempt];
    sequence.forget();
    ++counts_.preemptions;
    tell(events, sequence.request.id, Preempted{});
  }
  for (const Slice& slice : plan.slices) {
    Sequence& sequence = *sequences_[slice.sequence];
    sequence.waits_since = counts_.steps;
    if (!std::exchange(sequence.begun, true)) {
      const auto found = static_cast<std::int64_t>(sequence.prefix.pages()) * models::kPageTokens;
      counts_.prefix_queries += options_.prefix_cache ? static_cast<std::uint64_t>(sequence.known()) : 0;
      counts_.prefix_hits += static_cast<std::uint64_t>(found);
      tell(events, sequence.request.id, Began{std::min(found, static_cast<std::int64_t>(sequence.prompt))});
    }
    if (!sequence.cache) sequence.cache.emplace(model_);
    works.push_back({.sequence = &sequence, .first = sequence.seen(), .tokens = slice.tokens});
  }
  for (const auto& s : sequences_)
    if (!s->begun) s->forget();
  return works;
}

// For those that may begin in this step, so that the plan knows how little they have left to run.
void Engine::find_prefixes(const Budget& budget) {
  if (!options_.prefix_cache) return;
  std::int64_t begun = std::count_if(sequences_.begin(), sequences_.end(), [](const auto& s) { return s->begun; });
  std::int64_t tokens = 0;
  for (const auto& s : sequences_) {
    if (s->begun || s->known() == 0) continue;
    if (begun >= budget.sequences || tokens >= budget.tokens) break;
    ++begun;
    s->cache.emplace(model_);
    // The last token must run for its logits, and all do where the prompt's scores are still wanted.
    const bool all = s->request.prompt_logprobs && !s->scored;
    const auto most = all ? 0 : static_cast<std::size_t>((s->known() - 1) / models::kPageTokens);
    s->prefix = prefixes_.find(s->request.prefix_salt, s->tokens, most, *s->cache);
    tokens += s->pending();
  }
}

std::int64_t Engine::free_pages() const {
  if (options_.kv_pages == 0) return std::numeric_limits<std::int64_t>::max();
  return options_.kv_pages - static_cast<std::int64_t>(model_.kv_pool()->used()) +
         static_cast<std::int64_t>(prefixes_.unused());
}

// Lets pages of the prefix cache go where the step takes more than there are.
void Engine::make_room(std::span<const Work> works) {
  if (options_.kv_pages == 0) return;
  std::int64_t needed = static_cast<std::int64_t>(model_.kv_pool()->used()) - options_.kv_pages;
  for (const Work& work : works)
    needed += ceil_div(work.first + work.tokens, models::kPageTokens) -
              static_cast<std::int64_t>(work.sequence->cache->pages().size());
  if (needed > 0) prefixes_.evict(static_cast<std::size_t>(needed));
}

// Together; if that fails, each alone, to find whose fault it is.
void Engine::forward(std::vector<Work>& works) {
  rows_ = 0;
  if (works.empty()) return;
  if (works.size() > 1) try {
      return run(works);
    } catch (const std::exception&) {
    }
  for (Work& work : works) try {
      run({&work, 1});
    } catch (const std::exception& e) {
      work.error = e.what();
    }
}

void Engine::run(std::span<Work> works) {
  std::vector<models::Chunk> batch;
  for (Work& work : works) {
    Sequence& sequence = *work.sequence;
    sequence.cache->truncate(work.first);  // of what a failed attempt left behind
    batch.push_back({std::span(sequence.tokens)
                         .subspan(static_cast<std::size_t>(work.first), static_cast<std::size_t>(work.tokens)),
                     &*sequence.cache});
  }
  model_.forward(batch);

  std::vector<Work*> sampling;
  std::vector<std::int64_t> rows;  // of those, of the step
  std::int64_t row = 0;
  for (Work& work : works) {
    work.token.reset();  // of a failed attempt
    work.scores = prompt_scores(work, row);
    row += work.tokens;
    if (!work.samples() || !ask_mask(work)) continue;
    sampling.push_back(&work);
    rows.push_back(row - 1);
  }
  // The model chooses where it can; where it cannot, or finds nothing to choose, the sampler does, which says why.
  if (model_.chooses()) choose_on_device(sampling, rows);
  if (sampling.empty()) return;
  const auto vocab = static_cast<std::size_t>(model_.config().vocab_size);
  const std::size_t begin = rows_;
  for (Work* work : sampling) work->row = rows_++;
  if (logits_.size() < rows_ * vocab) logits_.resize(rows_ * vocab);
  model_.logits(rows, std::span(logits_).subspan(begin * vocab, sampling.size() * vocab));
}

// Asks the request's mask, if it has one, what may come next; on a GPU while the step runs. False if the mask fails.
bool Engine::ask_mask(Work& work) const {
  const auto& mask = work.sequence->request.mask;
  if (!mask || !work.allowed.empty()) return true;
  std::vector<std::uint32_t> words((static_cast<std::size_t>(options_.vocab_limit) + 31) / 32);
  try {
    mask->allowed(words);
  } catch (const std::exception& e) {
    work.error = e.what();
    return false;
  }
  work.allowed = std::move(words);
  return true;
}

History Engine::history(const Work& work) const {
  const Sequence& sequence = *work.sequence;
  History history{.prompt = std::span(sequence.tokens).first(sequence.prompt),
                  .output = sequence.output(),
                  .allowed = work.allowed,
                  .vocab_limit = options_.vocab_limit};
  if (static_cast<std::int64_t>(history.output.size()) < sequence.request.min_tokens)
    history.forbidden = sequence.stop_ids;
  return history;
}

// Takes from `sampling` and `rows` those whose tokens the model chooses.
void Engine::choose_on_device(std::vector<Work*>& sampling, std::vector<std::int64_t>& rows) {
  std::vector<std::vector<kernels::LogitEdit>> edits(sampling.size());
  parallel_for(static_cast<std::int64_t>(sampling.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      edits[i] = logit_edits(sampling[i]->sequence->request.sampling, history(*sampling[i]),
                             static_cast<std::size_t>(options_.vocab_limit));
  });
  std::vector<Work*> asked, left;
  std::vector<std::int64_t> left_rows;
  std::vector<models::TokenChoice> choices;
  const auto leave = [&](Work* work, std::int64_t row) {
    left.push_back(work);
    left_rows.push_back(row);
  };
  for (std::size_t i = 0; i < sampling.size(); ++i) {
    Work* const work = sampling[i];
    if (work->sequence->request.logprobs.value_or(0) > models::Model::kMostScored) {
      leave(work, rows[i]);
      continue;
    }
    const Sampling& s = work->sequence->request.sampling;
    asked.push_back(work);
    choices.push_back({.row = rows[i],
                       .temperature = s.temperature,
                       .top_k = s.top_k,
                       .top_p = s.top_p,
                       .min_p = s.min_p,
                       .uniform = uniform(s.seed, work->sequence->output().size()),
                       .edits = edits[i],
                       .allowed = work->allowed});
  }
  const std::vector<std::int32_t> ids = model_.choose(choices, options_.vocab_limit);
  std::vector<Work*> scored;
  std::vector<models::TokenQuestion> questions;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (ids[i] < 0) {
      leave(asked[i], choices[i].row);
      continue;
    }
    asked[i]->token = ids[i];
    if (const auto& top = asked[i]->sequence->request.logprobs) {
      scored.push_back(asked[i]);
      questions.push_back({.row = choices[i].row, .token = ids[i], .top = *top});
    }
  }
  std::vector<Score> scores = model_.score(questions, options_.vocab_limit);
  for (std::size_t i = 0; i < scored.size(); ++i) scored[i]->score = std::move(scores[i]);
  sampling = std::move(left);
  rows = std::move(left_rows);
}

// All at once.
void Engine::sample(std::span<Work> works) {
  std::vector<Work*> chosen;
  for (Work& work : works) {
    if (!work.error.empty() || !work.samples()) continue;
    if (work.token)
      work.chosen.token = *work.token;
    else
      chosen.push_back(&work);
  }
  const auto vocab = static_cast<std::size_t>(model_.config().vocab_size);
  parallel_for(static_cast<std::int64_t>(chosen.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      Work& work = *chosen[i];
      const Request& request = work.sequence->request;
      const std::span<const float> logits = std::span(logits_).subspan(work.row * vocab, vocab);
      work.chosen = engine::sample(logits, request.sampling, history(work));
      if (request.logprobs && !work.chosen.error)
        work.score = score(logits, work.chosen.token, *request.logprobs, options_.vocab_limit);
    }
  });
}

// Of the rows of the model's last step from `row` on.
std::vector<Score> Engine::prompt_scores(const Work& work, std::int64_t row) const {
  const Sequence& sequence = *work.sequence;
  std::vector<Score> scores;
  if (!sequence.request.prompt_logprobs || sequence.scored) return scores;
  const std::int64_t scored = std::min(work.tokens, static_cast<std::int64_t>(sequence.prompt) - 1 - work.first);
  const auto token = [&](std::int64_t i) { return sequence.tokens[static_cast<std::size_t>(work.first + i) + 1]; };
  if (model_.chooses() && *sequence.request.prompt_logprobs <= models::Model::kMostScored) {
    std::vector<models::TokenQuestion> questions;
    for (std::int64_t i = 0; i < scored; ++i)
      questions.push_back({.row = row + i, .token = token(i), .top = *sequence.request.prompt_logprobs});
    return model_.score(questions, options_.vocab_limit);
  }
  constexpr std::int64_t kRows = 32;  // whose logits are in memory at a time
  const auto vocab = static_cast<std::size_t>(model_.config().vocab_size);
  for (std::int64_t begin = 0; begin < scored; begin += kRows) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(kRows, scored - begin)));
    std::iota(rows.begin(), rows.end(), row + begin);
    const std::vector<float> logits = model_.logits(rows);
    for (std::size_t r = 0; r < rows.size(); ++r)
      scores.push_back(score(std::span(logits).subspan(r * vocab, vocab), token(begin + static_cast<std::int64_t>(r)),
                             *sequence.request.prompt_logprobs, options_.vocab_limit));
  }
  return scores;
}

// What the model's answer means for a sequence.
void Engine::advance(Work& work, std::vector<Event>& events) {
  Sequence& sequence = *work.sequence;
  if (!work.error.empty()) return finish(sequence, {.reason = FinishReason::error, .message = work.error}, events);
  const auto prompt = static_cast<std::int64_t>(sequence.prompt);
  counts_.prompt_tokens += static_cast<std::uint64_t>(std::clamp(prompt - work.first, std::int64_t{0}, work.tokens));
  // Some are there already if the sequence was preempted in its prompt.
  for (std::size_t i = 0; i < work.scores.size(); ++i)
    if (sequence.scores.size() == static_cast<std::size_t>(work.first) + i)
      sequence.scores.push_back(std::move(work.scores[i]));
  if (options_.prefix_cache)
    prefixes_.extend(sequence.prefix, sequence.request.prefix_salt, sequence.tokens, *sequence.cache);
  if (!work.complete()) return;
  if (sequence.request.prompt_logprobs && !std::exchange(sequence.scored, true))
    tell(events, sequence.request.id, PromptScores{std::move(sequence.scores)});
  if (sequence.max_new == 0) return finish(sequence, {.reason = FinishReason::length}, events);
  try {
    choose(work, events);
  } catch (const std::exception& e) {  // of the mask
    finish(sequence, {.reason = FinishReason::error, .message = e.what()}, events);
  }
}

void Engine::choose(Work& work, std::vector<Event>& events) {
  Sequence& sequence = *work.sequence;
  const Request& request = sequence.request;
  const Sample& chosen = work.chosen;
  if (chosen.error) return finish(sequence, {.reason = FinishReason::error, .message = chosen.error}, events);
  if (request.mask) request.mask->accept(chosen.token);
  const auto& stops = sequence.stop_ids;
  if (std::find(stops.begin(), stops.end(), chosen.token) != stops.end())
    return finish(sequence, {.reason = FinishReason::stop, .stop_id = chosen.token}, events);

  tell(events, request.id, NewToken{.token = chosen.token, .score = std::move(work.score)});
  sequence.tokens.push_back(chosen.token);
  ++counts_.generated_tokens;
  if (static_cast<std::int64_t>(sequence.output().size()) == sequence.max_new)
    finish(sequence, {.reason = FinishReason::length}, events);
}

void Engine::finish(Sequence& sequence, Finished how, std::vector<Event>& events) {
  sequence.finished = true;
  sequence.forget();
  ++(how.reason == FinishReason::stop        ? counts_.finished_stop
     : how.reason == FinishReason::length    ? counts_.finished_length
     : how.reason == FinishReason::cancelled ? counts_.finished_cancelled
                                             : counts_.finished_error);
  tell(events, sequence.request.id, std::move(how));
}

Metrics Engine::metrics() const {
  Metrics now = counts_;
  for (const auto& s : sequences_) {
    ++(s->begun ? now.running : now.waiting);
    now.cached_tokens += static_cast<std::uint64_t>(s->seen());
  }
  now.kv_pages = static_cast<std::uint64_t>(options_.kv_pages);
  now.kv_pages_used = model_.kv_pool()->used() - prefixes_.unused();
  return now;
}

}  // namespace lowp::engine
