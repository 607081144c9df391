#include "bench/serve_bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>
#include <numeric>

#include "bench/clock.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"

namespace lowp::bench {
namespace {

// The lines of server-sent events, as they come in pieces.
class EventLines {
 public:
  template <typename Visit>
  void push(std::string_view bytes, Visit visit) {
    held_ += bytes;
    std::size_t at = 0;
    for (std::size_t end; (end = held_.find('\n', at)) != std::string::npos; at = end + 1) {
      std::string_view line = std::string_view(held_).substr(at, end - at);
      if (line.ends_with('\r')) line.remove_suffix(1);
      constexpr std::string_view kData = "data:";
      if (!line.starts_with(kData)) continue;
      line.remove_prefix(kData.size());
      if (line.starts_with(' ')) line.remove_prefix(1);
      visit(line);
    }
    held_.erase(0, at);
  }

 private:
  std::string held_;
};

std::string body_of(const ServeBench& bench, const LoadRequest& request) {
  Json body = {{"model", bench.model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  if (bench.chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", request.prompt}}});
    body["max_completion_tokens"] = request.output_tokens;
  } else {
    body["prompt"] = request.prompt;
    body["max_tokens"] = request.output_tokens;
  }
  if (bench.ignore_eos) body["ignore_eos"] = true;
  body.update(bench.extra);
  return body.dump();
}

struct Run {
  server::HttpClient& client;
  const ServeBench& bench;
  const std::vector<LoadRequest>& load;
  const std::function<void(std::size_t)>& progress;
  const Clock::time_point begin = Clock::now();
  std::vector<ServedRequest> results = std::vector<ServedRequest>(load.size());
  std::deque<std::size_t> waiting = {};  // for the bound of concurrency
  std::int64_t open = 0;
  std::size_t ended = 0;

  double now() const { return since(begin); }

  void arrive(std::size_t index) {
    if (bench.max_concurrency > 0 && open >= bench.max_concurrency)
      waiting.push_back(index);
    else
      send(index);
  }

  void send(std::size_t index) {
    ++open;
    ServedRequest& result = results[index];
    result.prompt_tokens = load[index].prompt_tokens;
    const std::string body = body_of(bench, load[index]);
    auto lines = std::make_shared<EventLines>();
    result.begin = now();
    client.post(
        bench.endpoint, body, bench.headers,
        [this, index, lines](std::string_view bytes) {
          lines->push(bytes, [&](std::string_view event) { on_event(results[index], event); });
        },
        [this, index](const server::HttpClient::Reply& reply) { on_end(results[index], reply); });
  }

  void on_event(ServedRequest& result, std::string_view event) {
    if (event == "[DONE]") {
      result.ok = result.error.empty();
      return;
    }
    try {
      const Json json = parse_json(event, "an event");
      if (json.contains("error")) result.error = json["error"].value("message", "an error");
      if (json.contains("choices") && json["choices"].is_array() && !json["choices"].empty()) {
        const double at = now();
        if (result.chunks.empty()) result.first = at;
        result.chunks.push_back(at);
        result.last = at;
      }
      if (json.contains("usage") && json["usage"].is_object()) {
        const Json& usage = json["usage"];
        result.output_tokens = usage.value("completion_tokens", std::int64_t{0});
        result.prompt_tokens = usage.value("prompt_tokens", result.prompt_tokens);
      }
    } catch (const std::exception& e) {
      result.error = e.what();
    }
  }

  void on_end(ServedRequest& result, const server::HttpClient::Reply& reply) {
    if (!reply.error.empty())
      result.error = reply.error;
    else if (reply.status != 200)
      result.error = fmt::format("status {}: {}", reply.status, reply.body.substr(0, 300));
    else if (!result.ok && result.error.empty())
      result.error = "the stream ended early";
    result.ok = result.error.empty() && !result.chunks.empty();
    if (result.output_tokens == 0) result.output_tokens = static_cast<std::int64_t>(result.chunks.size());
    --open;
    progress(++ended);
    if (waiting.empty()) return;
    const std::size_t next = waiting.front();
    waiting.pop_front();
    send(next);
  }
};

double mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  const double middle = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - middle) * (v - middle);
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

struct Totals {
  std::size_t completed = 0, failed = 0, good = 0, peak_open = 0;
  std::int64_t input = 0, output = 0;
  double peak_output = 0;
  std::map<std::string, std::vector<double>> milliseconds;  // by metric
};

Totals totals(const ServeReport& report, const ServeBench& bench) {
  Totals t;
  std::map<std::int64_t, double> seconds;  // chunks in each second
  std::vector<std::pair<double, int>> edges;
  for (const ServedRequest& r : report.requests) {
    if (!r.ok) {
      ++t.failed;
      continue;
    }
    ++t.completed;
    t.input += r.prompt_tokens;
    t.output += r.output_tokens;
    t.milliseconds["ttft"].push_back(r.ttft() * 1e3);
    if (r.output_tokens > 1) t.milliseconds["tpot"].push_back(r.tpot() * 1e3);
    for (std::size_t i = 1; i < r.chunks.size(); ++i)
      t.milliseconds["itl"].push_back((r.chunks[i] - r.chunks[i - 1]) * 1e3);
    t.milliseconds["e2el"].push_back(r.latency() * 1e3);
    for (const double at : r.chunks) ++seconds[static_cast<std::int64_t>(at)];
    edges.emplace_back(r.begin, 1);
    edges.emplace_back(r.last, -1);
    const std::map<std::string, double> mine = {
        {"ttft", r.ttft() * 1e3}, {"tpot", r.tpot() * 1e3}, {"e2el", r.latency() * 1e3}};
    t.good += std::all_of(bench.goodput.begin(), bench.goodput.end(),
                          [&](const auto& goal) { return mine.at(goal.first) <= goal.second; });
  }
  for (const auto& [second, chunks] : seconds) t.peak_output = std::max(t.peak_output, chunks);
  std::sort(edges.begin(), edges.end());
  std::int64_t open = 0;
  for (const auto& [at, change] : edges)
    t.peak_open = std::max(t.peak_open, static_cast<std::size_t>(std::max<std::int64_t>(open += change, 0)));
  return t;
}

const std::map<std::string, std::pair<const char*, const char*>> kNames = {
    {"ttft", {"TTFT", "Time to First Token"}},
    {"tpot", {"TPOT", "Time per Output Token (excl. 1st token)"}},
    {"itl", {"ITL", "Inter-token Latency"}},
    {"e2el", {"E2EL", "End-to-end Latency"}}};

std::string percent_name(double percent) { return fmt::format("{:g}", percent); }

}  // namespace

double percentile(std::vector<double> values, double percent) {
  return values.empty() ? 0 : quantile(std::move(values), percent / 100);
}

double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::vector<ServedRequest> run_load(server::HttpClient& client, const ServeBench& bench,
                                    const std::vector<LoadRequest>& load,
                                    const std::function<void(std::size_t)>& progress) {
  Run run{.client = client, .bench = bench, .load = load, .progress = progress};
  const std::vector<double> at = arrivals(load.size(), bench.rate, bench.burstiness, bench.seed);
  for (std::size_t i = 0; i < load.size(); ++i)
    client.at(run.begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(at[i])),
              [&run, i] { run.arrive(i); });
  client.run();
  return std::move(run.results);
}

std::string ServeReport::text(const ServeBench& bench) const {
  const Totals t = totals(*this, bench);
  std::string out = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  const auto line = [&](const std::string& name, auto value) { out += fmt::format("{:<40} {:<10}\n", name, value); };
  const auto number = [](double value) { return fmt::format("{:.2f}", value); };
  line("Successful requests:", t.completed);
  line("Failed requests:", t.failed);
  if (bench.max_concurrency > 0) line("Maximum request concurrency:", bench.max_concurrency);
  if (!std::isinf(bench.rate)) line("Request rate configured (RPS):", number(bench.rate));
  line("Benchmark duration (s):", number(duration));
  line("Total input tokens:", t.input);
  line("Total generated tokens:", t.output);
  line("Request throughput (req/s):", number(static_cast<double>(t.completed) / duration));
  if (!bench.goodput.empty()) line("Request goodput (req/s):", number(static_cast<double>(t.good) / duration));
  line("Output token throughput (tok/s):", number(static_cast<double>(t.output) / duration));
  line("Peak output token throughput (tok/s):", number(t.peak_output));
  line("Peak concurrent requests:", number(static_cast<double>(t.peak_open)));
  line("Total token throughput (tok/s):", number(static_cast<double>(t.input + t.output) / duration));
  for (const std::string& metric : metrics) {
    const auto& [shortname, title] = kNames.at(metric);
    const auto found = t.milliseconds.find(metric);
    const std::vector<double> values = found == t.milliseconds.end() ? std::vector<double>{} : found->second;
    out += fmt::format("{:-^50}\n", title);
    line(fmt::format("Mean {} (ms):", shortname), number(mean(values)));
    line(fmt::format("Median {} (ms):", shortname), number(percentile(values, 50)));
    for (const double p : percentiles)
      line(fmt::format("P{} {} (ms):", percent_name(p), shortname), number(percentile(values, p)));
  }
  return out + std::string(50, '=') + "\n";
}

Json ServeReport::json(const ServeBench& bench) const {
  const Totals t = totals(*this, bench);
  Json out = {{"model_id", bench.model},
              {"num_prompts", requests.size()},
              {"request_rate", std::isinf(bench.rate) ? Json("inf") : Json(bench.rate)},
              {"burstiness", bench.burstiness},
              {"max_concurrency", bench.max_concurrency > 0 ? Json(bench.max_concurrency) : Json(nullptr)},
              {"duration", duration},
              {"completed", t.completed},
              {"failed", t.failed},
              {"total_input_tokens", t.input},
              {"total_output_tokens", t.output},
              {"request_throughput", static_cast<double>(t.completed) / duration},
              {"request_goodput", bench.goodput.empty() ? Json(nullptr) : Json(static_cast<double>(t.good) / duration)},
              {"output_throughput", static_cast<double>(t.output) / duration},
              {"total_token_throughput", static_cast<double>(t.input + t.output) / duration},
              {"max_output_tokens_per_s", t.peak_output},
              {"max_concurrent_requests", t.peak_open},
              {"client_cpu_share", client_share}};
  for (const std::string& metric : metrics) {
    const auto found = t.milliseconds.find(metric);
    const std::vector<double> values = found == t.milliseconds.end() ? std::vector<double>{} : found->second;
    out["mean_" + metric + "_ms"] = mean(values);
    out["median_" + metric + "_ms"] = percentile(values, 50);
    out["std_" + metric + "_ms"] = deviation(values);
    for (const double p : percentiles) out["p" + percent_name(p) + "_" + metric + "_ms"] = percentile(values, p);
  }
  return out;
}

}  // namespace lowp::bench
