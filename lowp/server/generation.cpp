#include "lowp/server/generation.h"

#include <algorithm>

namespace lowp::server {

Generation::Generation(std::shared_ptr<Exchange> exchange, GenerationRequest request,
                       std::unique_ptr<AnswerFormat> format, std::uint64_t first_id, Clock::time_point arrival,
                       Context context)
    : exchange_(std::move(exchange)),
      request_(std::move(request)),
      format_(std::move(format)),
      first_id_(first_id),
      arrival_(arrival),
      context_(std::move(context)),
      unfinished_(static_cast<std::size_t>(request_.sequences())) {
  for (std::size_t i = 0; i < unfinished_; ++i) {
    Sequence& s = sequences_.emplace_back(Sequence{SequenceText(
        context_.tokenizer, prompt(i), request_.stop, request_.skip_special_tokens, request_.logprobs.has_value())});
    s.times.arrival = arrival;
    s.times.prompt_tokens = static_cast<std::int64_t>(prompt(i).size());
  }
}

std::vector<engine::Request> Generation::engine_requests() const {
  std::vector<engine::Request> all;
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    engine::Request& r = all.emplace_back(request_.engine);
    r.id = first_id_ + i;
    r.prompt = prompt(i);
    if (only_scores(i)) r.max_new_tokens = 0;
    if (request_.constraint)
      r.mask = std::make_shared<ConstraintMask>(request_.constraint, request_.chat.in_reasoning ? "</think>" : "");
    r.sampling.seed += i % static_cast<std::size_t>(request_.n);
  }
  return all;
}

void Generation::accepted() {
  exchange_->on_gone([self = weak_from_this()] {
    if (const auto generation = self.lock()) generation->abandon();
  });
  if (done_ || !request_.stream) return;
  began_ = true;
  exchange_->begin(200, "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}});
}

void Generation::event(const std::string& data) {
  wrote_ = true;
  exchange_->write("data: " + data + "\n\n");
}

void Generation::on_event(const engine::Event& what, Clock::time_point step, Clock::time_point now) {
  const auto index = static_cast<std::size_t>(what.id - first_id_);
  Sequence& s = sequences_[index];
  if (done_ || s.finished) return;
  if (const auto* began = std::get_if<engine::Began>(&what.what)) {
    s.times.begun = step;
    s.cached_tokens = began->cached_tokens;
  } else if (const auto* scores = std::get_if<engine::PromptScores>(&what.what)) {
    s.prompt_scores = scores->scores;
  } else if (const auto* token = std::get_if<engine::NewToken>(&what.what)) {
    if (s.times.generated_tokens++ == 0)
      s.times.first_token = now;
    else
      context_.metrics.token(now - s.times.last_token);
    s.times.last_token = now;
    echo(index);
    s.text.push(*token);
    if (!s.text.stopped()) return;
    context_.cancel({what.id});
    finish(index, "stop");
  } else if (const auto* end = std::get_if<engine::Finished>(&what.what)) {
    if (end->reason == engine::FinishReason::error)
      return fail(ApiError(500, "server_error", "the model could not go on with this request: " + end->message),
                  "error");
    if (s.times.generated_tokens == 0) s.times.last_token = now;
    finish(index, engine::name(end->reason));
  }
}

void Generation::echo(std::size_t index) {
  Sequence& s = sequences_[index];
  if (request_.echo && !std::exchange(s.echoed, true)) s.text.echo(prompt(index), std::move(s.prompt_scores));
}

void Generation::show(std::uint64_t id) {
  if (done_) return;
  const auto index = static_cast<std::size_t>(id - first_id_);
  Piece piece = sequences_[index].text.take();
  if (!request_.stream) return format_->collect(static_cast<int>(index), std::move(piece));
  for (const std::string& chunk : format_->chunks(static_cast<int>(index), piece)) event(chunk);
}

void Generation::finish(std::size_t index, std::string_view reason) {
  Sequence& s = sequences_[index];
  s.finished = true;
  echo(index);
  if (only_scores(index)) s.text.push_nothing();
  s.text.finish(reason);
  show(first_id_ + index);
  context_.metrics.finished(reason, s.times);
  if (--unfinished_ == 0) finish_answer();
}

Usage Generation::usage() const {
  Usage usage;
  for (const auto& prompt : request_.prompts) usage.prompt_tokens += static_cast<std::int64_t>(prompt.size());
  for (const Sequence& s : sequences_) {
    usage.completion_tokens += s.text.tokens();
    usage.cached_tokens += s.cached_tokens;
  }
  return usage;
}

void Generation::finish_answer() {
  done_ = true;
  if (!request_.stream) {
    exchange_->send(200, "application/json", format_->body(usage()).dump());
  } else {
    if (request_.include_usage) event(format_->usage_chunk(usage()).dump());
    event("[DONE]");
    exchange_->end();
  }
  exchange_.reset();
  context_.answered(200);
}

void Generation::cancel_rest(std::string_view reason) {
  done_ = true;
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < sequences_.size(); ++i)
    if (!sequences_[i].finished) {
      ids.push_back(first_id_ + i);
      context_.metrics.aborted(reason);
    }
  context_.cancel(std::move(ids));
}

void Generation::fail(const ApiError& error, std::string_view reason) {
  if (done_) return;
  cancel_rest(reason);
  reply(error);
}

void Generation::refuse(const ApiError& error) {
  done_ = true;
  reply(error);
}

void Generation::reply(const ApiError& error) {
  if (began_) {
    event(error.body());
    event("[DONE]");
    exchange_->end();
  } else {
    exchange_->send(error.status(), "application/json", error.body(), error.headers());
  }
  exchange_.reset();
  context_.answered(error.status());
}

void Generation::abandon() {
  if (done_) return;
  cancel_rest("disconnect");
  exchange_.reset();
  constexpr int kClientClosed = 499;
  context_.answered(kClientClosed);
}

void Generation::ping() {
  if (done_ || !began_) return;
  // An empty line, which ends no event. Not a comment: `vllm bench serve` takes what follows one for its continuation.
  if (!std::exchange(wrote_, false)) exchange_->write("\n");
}

}  // namespace lowp::server
