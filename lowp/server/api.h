// The routes of the OpenAI API and of the server's own: who may call what, and what comes back.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "lowp/server/engine_thread.h"
#include "lowp/server/generation.h"
#include "lowp/server/generation_request.h"
#include "lowp/server/http.h"
#include "lowp/server/metrics.h"

namespace lowp::server {

struct ApiOptions {
  std::string version;
  std::string metrics_prefix = "lowp:";
  std::vector<std::string> api_keys = {};         // any of them opens; none: everybody may
  std::vector<std::string> allowed_hosts = {};    // names in Host, beside addresses and localhost; "*": any
  std::vector<std::string> allowed_origins = {};  // pages of others that may call; "*": any
  std::size_t max_waiting = 256;                  // requests that have not begun
  std::chrono::seconds request_timeout{600};
};

/// Everything here happens on the HTTP server's thread, unless it says otherwise.
class Api {
 public:
  Api(HttpServer& http, ApiOptions options);
  ~Api();

  /// Answers a request, at once or later.
  void handle(std::shared_ptr<Exchange> exchange);

  /// The share of the model that is loaded, for /ready. From any thread.
  void loading(double share) { loaded_ = share; }
  /// From now on requests are served. Everything given must outlive this.
  void serve(const ServedModel& model, EngineThread& engine, double load_seconds);
  /// What the engine tells of a step that began at `step`. From any thread.
  void deliver(std::vector<engine::Event> events, Clock::time_point step);
  /// Nothing runs any more: every request fails.
  void break_down();

  /// Takes no more requests, and calls `done` when the running ones have ended, at the latest after `patience`, when
  /// those that still run fail.
  void drain(std::chrono::seconds patience, std::function<void()> done);
  bool draining() const { return static_cast<bool>(drained_); }
  /// Requests that are being answered.
  std::size_t active() const { return active_.size(); }

 private:
  struct Route;
  static const std::vector<Route>& routes();
  using Shared = std::shared_ptr<Exchange>;

  void guard(const Exchange& exchange, const Route* route) const;
  void answer(const Shared& exchange, std::string_view handler, int status, const std::string& body,
              std::string_view type = "application/json", const Headers& headers = {});
  void refuse(const Shared& exchange, std::string_view handler, const ApiError& error);
  using Work = std::function<std::function<void()>(const Json& body)>;
  void prepare(const Shared& exchange, std::string_view handler, Work work);

  void chat_page(const Shared& exchange);
  void health(const Shared& exchange);
  void ready(const Shared& exchange);
  void version(const Shared& exchange);
  void models(const Shared& exchange);
  void metrics(const Shared& exchange);
  void completions(const Shared& exchange);
  void chat_completions(const Shared& exchange);
  void tokenize(const Shared& exchange);
  void detokenize(const Shared& exchange);
  void tokenizer_info(const Shared& exchange);

  using Reader = std::function<GenerationRequest(const Json& body, const ServedModel& model)>;
  using Format = std::function<std::unique_ptr<AnswerFormat>(const GenerationRequest& request)>;
  void generate(const Shared& exchange, std::string_view handler, Reader read, Format format);
  void start(const std::shared_ptr<Generation>& generation);
  void dispatch(const std::vector<engine::Event>& events, Clock::time_point step);
  void tick();
  AnswerHead head(const char* prefix);

  HttpServer& http_;
  const ApiOptions options_;
  const ServedModel* model_ = nullptr;
  EngineThread* engine_ = nullptr;
  std::unique_ptr<Metrics> metrics_;
  std::atomic<double> loaded_ = 0;  // share of the model
  bool broken_ = false;
  std::uint64_t next_id_ = 1;
  std::uint64_t ticks_ = 0;
  std::size_t preparing_ = 0;                                              // requests that are read in the background
  std::unordered_map<std::uint64_t, std::shared_ptr<Generation>> active_;  // by the ids of their sequences
  std::function<void()> drained_;
  Clock::time_point drain_until_;
};

}  // namespace lowp::server
