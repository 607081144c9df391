#include "lowp/server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "lowp/base/error.h"
#include "lowp/server/api_error.h"
#include "lowp/server/chat_page.h"
#include "lowp/server/chat_request.h"

namespace lowp::server {

struct Api::Route {
  const char* method;
  const char* path;
  void (Api::*answer)(const Shared& exchange);
  bool open = false;         // without a key
  bool needs_model = false;  // 503 until it is loaded
};

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> all = {
      {.method = "GET", .path = "/", .answer = &Api::chat_page, .open = true},
      {.method = "GET", .path = "/health", .answer = &Api::health, .open = true},
      {.method = "GET", .path = "/ready", .answer = &Api::ready, .open = true},
      {.method = "GET", .path = "/version", .answer = &Api::version},
      {.method = "GET", .path = "/metrics", .answer = &Api::metrics, .needs_model = true},
      {.method = "GET", .path = "/v1/models", .answer = &Api::models, .needs_model = true},
      {.method = "GET", .path = "/tokenizer_info", .answer = &Api::tokenizer_info, .needs_model = true},
      {.method = "POST", .path = "/tokenize", .answer = &Api::tokenize, .needs_model = true},
      {.method = "POST", .path = "/detokenize", .answer = &Api::detokenize, .needs_model = true},
      {.method = "POST", .path = "/v1/completions", .answer = &Api::completions, .needs_model = true},
      {.method = "POST", .path = "/v1/chat/completions", .answer = &Api::chat_completions, .needs_model = true},
  };
  return all;
}

namespace {

// In a time that depends on the lengths only.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i] ^ (b.empty() ? 0 : b[i % b.size()]));
  return difference == 0;
}

bool lists(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end() ||
         std::find(names.begin(), names.end(), "*") != names.end();
}

// Without the port: "[::1]:8000" is "[::1]".
std::string_view host_name(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

bool is_address(std::string_view host) {
  return host.starts_with('[') || (!host.empty() && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

ApiError overloaded(const std::string& message) { return {429, "rate_limit_error", message}; }

ApiError unavailable(const std::string& message) { return {503, "service_unavailable", message}; }

ApiError as_api_error(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const ApiError& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return unavailable("out of memory");
  } catch (const std::exception&) {
    return {500, "server_error", "an unexpected failure"};
  }
}

}  // namespace

Api::Api(HttpServer& http, ApiOptions options) : http_(http), options_(std::move(options)) {
  constexpr std::chrono::milliseconds kTick{1000};
  http_.every(kTick, [this] { tick(); });
}

Api::~Api() = default;

void Api::answer(const Shared& exchange, std::string_view handler, int status, const std::string& body,
                 std::string_view type, const Headers& headers) {
  if (metrics_) metrics_->answered(handler, exchange->request().method, status);
  exchange->send(status, type, body, headers);
}

void Api::refuse(const Shared& exchange, std::string_view handler, const ApiError& error) {
  answer(exchange, handler, error.status(), error.body(), "application/json", error.headers());
}

void Api::guard(const Exchange& exchange, const Route* route) const {
  const HttpRequest& request = exchange.request();
  // A page on another site that makes a browser call us (or a name that it makes point here) gets nothing.
  const std::string_view host = host_name(request.header("host")), origin = request.header("origin");
  if (!host.empty() && host != "localhost" && !is_address(host) && !lists(options_.allowed_hosts, host))
    throw ApiError(403, "forbidden", "the name in Host is not one of this server's; see --allowed-hosts");
  const std::size_t scheme = origin.find("://");
  if (!origin.empty() && !lists(options_.allowed_origins, origin) &&
      (scheme == std::string_view::npos || origin.substr(scheme + 3) != request.header("host")))
    throw ApiError(403, "forbidden", "pages of this origin may not call; see --allowed-origins");
  if (!options_.api_keys.empty() && !(route && route->open)) {
    std::string_view key = request.header("x-api-key");
    constexpr std::string_view kBearer = "Bearer ";
    if (const auto authorization = request.header("authorization"); authorization.starts_with(kBearer))
      key = authorization.substr(kBearer.size());
    bool known = false;
    for (const std::string& one : options_.api_keys) known |= same_secret(key, one);
    if (!known) throw ApiError(401, "authentication_error", "the API key is missing or wrong");
  }
}

void Api::handle(Shared exchange) {
  const HttpRequest& request = exchange->request();
  const Route* found = nullptr;
  bool path_exists = false;
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::string allow = "OPTIONS";
  for (const Route& route : routes())
    if (request.path == route.path) {
      path_exists = true;
      allow += fmt::format(", {}", route.method);
      if (method == route.method) found = &route;
    }
  const std::string_view handler = path_exists ? std::string_view(request.path) : "none";
  try {
    guard(*exchange, found);
    if (path_exists && method == "OPTIONS") return answer(exchange, handler, 204, "", "", {{"Allow", allow}});
    if (!path_exists) throw ApiError(404, "not_found_error", "there is no such route");
    if (!found) throw ApiError(405, "invalid_request_error", fmt::format("this route has the methods {}", allow));
    if (found->needs_model && broken_) throw unavailable("the engine has failed");
    if (found->needs_model && !model_) throw unavailable("the model is loading");
    const std::string_view encoding = request.header("content-encoding");
    if (!encoding.empty() && encoding != "identity")
      throw ApiError(415, "invalid_request_error", "bodies must not be compressed");
    (this->*found->answer)(exchange);
  } catch (const ApiError& e) {
    refuse(exchange, handler, e);
  }
}

void Api::serve(const ServedModel& model, EngineThread& engine, double load_seconds) {
  model_ = &model;
  engine_ = &engine;
  metrics_ = std::make_unique<Metrics>(options_.metrics_prefix, model.names.front(), options_.version);
  metrics_->model_loaded(load_seconds);
}

// ---- what says how the server is

void Api::chat_page(const Shared& exchange) {
  answer(exchange, "/", 200, std::string(kChatPage), "text/html; charset=utf-8",
         {{"Content-Security-Policy",
           "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
           "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
          {"X-Content-Type-Options", "nosniff"}});
}

void Api::health(const Shared& exchange) {
  constexpr std::chrono::minutes kStuck{10};
  if (broken_ || (engine_ && engine_->step_age() > kStuck))
    return refuse(exchange, "/health",
                  unavailable(broken_ ? "the engine has failed" : "the engine is stuck in a step"));
  answer(exchange, "/health", 200, R"({"status":"ok"})");
}

void Api::ready(const Shared& exchange) {
  const char* status = broken_ ? "failed" : drained_ ? "draining" : model_ ? "ready" : "loading";
  const Json body = {{"status", status}, {"progress", model_ ? 1.0 : loaded_.load()}};
  answer(exchange, "/ready", model_ && !broken_ && !drained_ ? 200 : 503, body.dump());
}

void Api::version(const Shared& exchange) {
  answer(exchange, "/version", 200, Json({{"version", options_.version}}).dump());
}

void Api::metrics(const Shared& exchange) {
  answer(exchange, "/metrics", 200, metrics_->text(engine_->metrics()), "text/plain; version=0.0.4; charset=utf-8");
}

void Api::models(const Shared& exchange) {
  Json data = Json::array();
  for (const std::string& name : model_->names)
    data.push_back({{"id", name},
                    {"object", "model"},
                    {"created", model_->created},
                    {"owned_by", "lowp"},
                    {"root", model_->names.front()},
                    {"parent", nullptr},
                    {"max_model_len", model_->context}});
  answer(exchange, "/v1/models", 200, Json({{"object", "list"}, {"data", data}}).dump());
}

// ---- text and tokens

// Reads the body and works on it off the server's thread; what `work` returns is then called on it.
void Api::prepare(const Shared& exchange, std::string_view handler, Work work) {
  if (preparing_ >= options_.max_waiting) {
    metrics_->rejected("queue_full");
    throw overloaded("too many requests at once");
  }
  ++preparing_;
  http_.background([this, exchange, handler, work = std::move(work)] {
    std::function<void()> next;
    try {
      next = work(parse_body(exchange->request().body));
    } catch (...) {
      next = [this, exchange, handler, error = as_api_error(std::current_exception())] {
        metrics_->rejected(error.status() >= 500 ? "error" : "invalid");
        refuse(exchange, handler, error);
      };
    }
    http_.post([this, next = std::move(next)] {
      --preparing_;
      next();
    });
  });
}

void Api::tokenize(const Shared& exchange) {
  prepare(exchange, "/tokenize", [this, exchange](const Json& json) {
    const Fields body(json, "");
    check_model_name(body, *model_);
    const auto prompt = body.string("prompt");
    if (!prompt) throw bad_request("prompt: is missing", "prompt");
    const auto ids = encode_text(*prompt,
                                 {.add_special_tokens = body.flag("add_special_tokens").value_or(true),
                                  .parse_special = body.flag("parse_special").value_or(true)},
                                 *model_);
    Json tokens = {{"count", ids.size()}, {"max_model_len", model_->context}, {"tokens", ids}};
    if (body.flag("return_token_strs").value_or(false)) {
      Json strings = Json::array();
      for (const std::int32_t id : ids) strings.push_back(token_text(*model_->tokenizer, id));
      tokens["token_strs"] = std::move(strings);
    }
    return [this, exchange, text = tokens.dump()] { answer(exchange, "/tokenize", 200, text); };
  });
}

void Api::detokenize(const Shared& exchange) {
  prepare(exchange, "/detokenize", [this, exchange](const Json& json) {
    const Fields body(json, "");
    check_model_name(body, *model_);
    const Json* tokens = body.array("tokens");
    if (!tokens) throw bad_request("tokens: is missing", "tokens");
    const std::vector<std::int32_t> ids = read_token_ids(*tokens, "tokens", *model_);
    for (const std::int32_t id : ids)
      if (!model_->tokenizer->token(id)) throw bad_request(fmt::format("tokens: no token has the id {}", id), "tokens");
    const Json prompt = {{"prompt", model_->tokenizer->decode(ids)}};
    return [this, exchange, text = prompt.dump()] { answer(exchange, "/detokenize", 200, text); };
  });
}

void Api::tokenizer_info(const Shared& exchange) { answer(exchange, "/tokenizer_info", 200, model_->tokenizer_info); }

// ---- generation

void Api::completions(const Shared& exchange) {
  generate(exchange, "/v1/completions", read_completion, [this](const GenerationRequest& request) {
    return completion_format(head("cmpl-"), *model_->tokenizer, static_cast<int>(request.sequences()),
                             request.logprobs.has_value());
  });
}

void Api::chat_completions(const Shared& exchange) {
  generate(exchange, "/v1/chat/completions", read_chat, [this](const GenerationRequest& request) {
    return chat_format(head("chatcmpl-"), *model_->tokenizer, static_cast<int>(request.sequences()),
                       request.logprobs.has_value(), request.chat);
  });
}

AnswerHead Api::head(const char* prefix) {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.id = fmt::format("{}{:016x}{:08x}", prefix, random(), static_cast<std::uint32_t>(random())),
          .model = model_->names.front(),
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count()};
}

void Api::generate(const Shared& exchange, std::string_view handler, Reader read, Format format) {
  if (drained_) throw unavailable("the server is shutting down");
  const Clock::time_point arrival = Clock::now();
  prepare(exchange, handler, [=, this](const Json& body) {
    auto request = std::make_shared<GenerationRequest>(read(body, *model_));
    exchange->body() = {};
    return [=, this] {
      if (exchange->gone()) return metrics_->aborted("disconnect");
      auto answer = format(*request);
      start(std::make_shared<Generation>(
          exchange, std::move(*request), std::move(answer), next_id_, arrival,
          Generation::Context{
              .tokenizer = *model_->tokenizer,
              .context = model_->context,
              .metrics = *metrics_,
              .cancel = [this](std::vector<std::uint64_t> ids) { engine_->cancel(std::move(ids)); },
              .answered = [this, handler](int status) { metrics_->answered(handler, "POST", status); }}));
    };
  });
}

void Api::start(const std::shared_ptr<Generation>& generation) {
  next_id_ += generation->count();
  if (broken_ || drained_) return generation->fail(unavailable("the server is shutting down"), "shutdown");
  const engine::Admit admit = engine_->submit(generation->engine_requests());
  if (!admit) {
    metrics_->rejected(admit.status == engine::Admit::Status::queue_full ? "queue_full" : "invalid");
    return generation->refuse(admit.status == engine::Admit::Status::queue_full
                                  ? overloaded(admit.message)
                                  : bad_request(admit.message, admit.parameter));
  }
  for (std::size_t i = 0; i < generation->count(); ++i) active_.emplace(generation->first_id() + i, generation);
  generation->accepted();
}

void Api::deliver(std::vector<engine::Event> events, Clock::time_point step) {
  http_.post([this, events = std::move(events), step] { dispatch(events, step); });
}

void Api::dispatch(const std::vector<engine::Event>& events, Clock::time_point step) {
  const Clock::time_point now = Clock::now();
  std::vector<std::pair<std::uint64_t, std::shared_ptr<Generation>>> touched;
  for (const engine::Event& event : events) {
    const auto at = active_.find(event.id);
    if (at == active_.end()) continue;
    const std::shared_ptr<Generation> generation = at->second;
    if (std::holds_alternative<engine::Finished>(event.what)) active_.erase(at);
    generation->on_event(event, step, now);
    touched.emplace_back(event.id, generation);
  }
  for (const auto& [id, generation] : touched) generation->show(id);
}

void Api::break_down() {
  http_.post([this] {
    broken_ = true;
    const auto all = std::exchange(active_, {});
    for (const auto& [id, generation] : all)
      generation->fail(ApiError(500, "server_error", "the engine has failed"), "error");
  });
}

void Api::drain(std::chrono::seconds patience, std::function<void()> done) {
  drained_ = std::move(done);
  drain_until_ = Clock::now() + patience;
}

// Once a second: time-outs, pings to those who wait, the end of a drain.
void Api::tick() {
  constexpr int kPing = 15;
  const Clock::time_point now = Clock::now();
  const auto all = active_;
  const bool late = drained_ && now >= drain_until_;
  ++ticks_;
  for (const auto& [id, generation] : all) {
    if (late)
      generation->fail(unavailable("the server is shutting down"), "shutdown");
    else if (now - generation->arrival() > options_.request_timeout)
      generation->fail(ApiError(408, "timeout", "the request took too long"), "timeout");
    else if (ticks_ % kPing == 0)
      generation->ping();
  }
  if (drained_ && (late || (active_.empty() && preparing_ == 0))) drained_();
}

}  // namespace lowp::server
