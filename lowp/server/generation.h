// One request on its way through the engine: its sequences, and the answer that grows from their tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowp/engine/engine.h"
#include "lowp/server/answer.h"
#include "lowp/server/api_error.h"
#include "lowp/server/generation_request.h"
#include "lowp/server/http.h"
#include "lowp/server/metrics.h"

namespace lowp::server {

/// Everything here happens on the server's thread.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct Context {
    const text::Tokenizer& tokenizer;
    std::int64_t context;
    Metrics& metrics;
    std::function<void(std::vector<std::uint64_t>)> cancel;  // requests of the engine
    std::function<void(int)> answered;                       // with the status
  };

  /// The sequences have the ids first_id, first_id + 1, ...
  Generation(std::shared_ptr<Exchange> exchange, GenerationRequest request, std::unique_ptr<AnswerFormat> format,
             std::uint64_t first_id, Clock::time_point arrival, Context context);

  /// What the engine is asked for.
  std::vector<engine::Request> engine_requests() const;
  std::uint64_t first_id() const { return first_id_; }
  std::size_t count() const { return sequences_.size(); }
  Clock::time_point arrival() const { return arrival_; }
  bool done() const { return done_; }

  /// The engine has taken the request, or not.
  void accepted();
  void refuse(const ApiError& error);
  /// `step`: when the engine began the step that says so.
  void on_event(const engine::Event& event, Clock::time_point step, Clock::time_point now);
  /// Shows what came for a sequence since the last time: one chunk for all that a step brought.
  void show(std::uint64_t id);
  /// Ends the request with an error, wherever it is; `reason` is for the metrics.
  void fail(const ApiError& error, std::string_view reason);
  /// A comment to a client that waits, so that nobody on the way closes the connection.
  void ping();

 private:
  struct Sequence {
    SequenceText text;
    RequestTimes times = {};
    std::int64_t cached_tokens = 0;
    std::vector<engine::Score> prompt_scores = {};
    bool echoed = false, finished = false;
  };
  const std::vector<std::int32_t>& prompt(std::size_t index) const {
    return request_.prompts[index / static_cast<std::size_t>(request_.n)];
  }
  /// The prompt is one longer than the context: nothing can come after it.
  bool only_scores(std::size_t index) const {
    return static_cast<std::int64_t>(prompt(index).size()) > context_.context;
  }
  void echo(std::size_t index);
  void finish(std::size_t index, std::string_view reason);
  void abandon();
  void reply(const ApiError& error);
  void cancel_rest(std::string_view reason);
  void finish_answer();
  Usage usage() const;
  void event(const std::string& data);

  std::shared_ptr<Exchange> exchange_;
  const GenerationRequest request_;
  const std::unique_ptr<AnswerFormat> format_;
  const std::uint64_t first_id_;
  const Clock::time_point arrival_;
  const Context context_;
  std::vector<Sequence> sequences_;
  std::size_t unfinished_;
  bool began_ = false, done_ = false, wrote_ = false;
};

}  // namespace lowp::server
