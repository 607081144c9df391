#include "lowp/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace lowp::server {

namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640};
const Buckets kBetween = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                          0.2,    0.3,   0.4,    0.5,   0.75, 1,     2.5,  5,     10};
const Buckets kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

struct Metrics::Impl {
  std::string prefix;
  prometheus::Labels model;
  prometheus::Registry registry{};

  prometheus::Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(prefix + name).Help(help).Register(registry).Add(model, buckets);
  }
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(prefix + name).Help(help).Register(registry).Add(model);
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(prefix + name).Help(help).Register(registry).Add(model);
  }
  prometheus::Family<prometheus::Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(prefix + name).Help(help).Register(registry);
  }
  prometheus::Labels labels(const char* key, std::string_view value) {
    prometheus::Labels all = model;
    all.emplace(key, value);
    return all;
  }

  prometheus::Gauge& running = gauge("num_requests_running", "Sequences that have begun and not finished.");
  prometheus::Gauge& waiting = gauge("num_requests_waiting", "Sequences that have not begun.");
  prometheus::Gauge& kv_usage = gauge("kv_cache_usage_perc", "Share of the pages for keys and values in use, 0 to 1.");
  prometheus::Counter& preemptions = counter("num_preemptions_total", "Sequences put back because memory was full.");
  prometheus::Counter& prefix_queries =
      counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  prometheus::Counter& prefix_hits = counter("prefix_cache_hits_total", "Prompt tokens found there.");
  prometheus::Counter& prompt_tokens = counter("prompt_tokens_total", "Prompt tokens run through the model.");
  prometheus::Counter& generated = counter("generation_tokens_total", "Tokens generated.");
  prometheus::Counter& steps = counter("engine_steps_total", "Steps of the engine.");
  prometheus::Family<prometheus::Counter>& success =
      counters("request_success_total", "Sequences that finished, by reason.");
  prometheus::Family<prometheus::Counter>& rejected =
      counters("requests_rejected_total", "Requests refused, by reason.");
  prometheus::Family<prometheus::Counter>& aborted =
      counters("requests_aborted_total", "Sequences ended before their time, by reason.");
  prometheus::Family<prometheus::Counter>& http =
      counters("http_requests_total", "Answers, by handler, method and status.");
  prometheus::Histogram& ttft = histogram("time_to_first_token_seconds", "From arrival to the first token.", kSeconds);
  prometheus::Histogram& itl = histogram("inter_token_latency_seconds", "Between tokens of a sequence.", kBetween);
  prometheus::Histogram& tpot =
      histogram("request_time_per_output_token_seconds", "Mean time of a sequence's tokens after the first.", kBetween);
  prometheus::Histogram& e2e = histogram("e2e_request_latency_seconds", "From arrival to the last token.", kSeconds);
  prometheus::Histogram& queue = histogram("request_queue_time_seconds", "From arrival to the first step.", kSeconds);
  prometheus::Histogram& prefill =
      histogram("request_prefill_time_seconds", "From the first step to the first token.", kSeconds);
  prometheus::Histogram& decode =
      histogram("request_decode_time_seconds", "From the first token to the last.", kSeconds);
  prometheus::Histogram& prompt_length = histogram("request_prompt_tokens", "Tokens of a prompt.", kTokens);
  prometheus::Histogram& length = histogram("request_generation_tokens", "Tokens generated for a sequence.", kTokens);
  prometheus::Gauge& load_seconds = gauge("model_load_seconds", "How long loading the model took.");
};

Metrics::Metrics(const std::string& prefix, const std::string& model, const std::string& version)
    : impl_(new Impl{.prefix = prefix, .model = {{"model_name", model}}}) {
  prometheus::BuildGauge()
      .Name(prefix + "build_info")
      .Help("Always 1.")
      .Register(impl_->registry)
      .Add(impl_->labels("version", version))
      .Set(1);
}

Metrics::~Metrics() = default;

void Metrics::token(Clock::duration since_last) { impl_->itl.Observe(seconds(since_last)); }

void Metrics::finished(std::string_view reason, const RequestTimes& t) {
  Impl& i = *impl_;
  i.success.Add(i.labels("finished_reason", reason)).Increment();
  i.prompt_length.Observe(static_cast<double>(t.prompt_tokens));
  i.length.Observe(static_cast<double>(t.generated_tokens));
  i.queue.Observe(seconds(t.begun - t.arrival));
  i.e2e.Observe(seconds(t.last_token - t.arrival));
  if (t.generated_tokens == 0) return;
  i.ttft.Observe(seconds(t.first_token - t.arrival));
  i.prefill.Observe(seconds(t.first_token - t.begun));
  i.decode.Observe(seconds(t.last_token - t.first_token));
  if (t.generated_tokens > 1)
    i.tpot.Observe(seconds(t.last_token - t.first_token) / static_cast<double>(t.generated_tokens - 1));
}

void Metrics::rejected(std::string_view reason) { impl_->rejected.Add(impl_->labels("reason", reason)).Increment(); }

void Metrics::aborted(std::string_view reason) { impl_->aborted.Add(impl_->labels("reason", reason)).Increment(); }

void Metrics::answered(std::string_view handler, std::string_view method, int status) {
  impl_->http
      .Add({{"handler", std::string(handler)}, {"method", std::string(method)}, {"status", std::to_string(status)}})
      .Increment();
}

void Metrics::model_loaded(double seconds) { impl_->load_seconds.Set(seconds); }

std::string Metrics::text(const engine::Metrics& engine) {
  Impl& i = *impl_;
  const auto advance = [](prometheus::Counter& counter, std::uint64_t total) {
    counter.Increment(static_cast<double>(total) - counter.Value());
  };
  i.running.Set(static_cast<double>(engine.running));
  i.waiting.Set(static_cast<double>(engine.waiting));
  i.kv_usage.Set(engine.kv_pages ? static_cast<double>(engine.kv_pages_used) / static_cast<double>(engine.kv_pages)
                                 : 0);
  advance(i.preemptions, engine.preemptions);
  advance(i.prefix_queries, engine.prefix_queries);
  advance(i.prefix_hits, engine.prefix_hits);
  advance(i.prompt_tokens, engine.prompt_tokens);
  advance(i.generated, engine.generated_tokens);
  advance(i.steps, engine.steps);
  return prometheus::TextSerializer().Serialize(i.registry.Collect());
}

}  // namespace lowp::server
