#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <memory>

#include "bench/offline_bench.h"
#include "bench/serve_bench.h"
#include "cli/command.h"
#include "cli/generation.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/formats/recipes.h"
#include "lowp/models/shapes.h"

namespace lowp::cli {
namespace {

// ---- serve

struct BenchServeOptions {
  std::string url, host = "127.0.0.1", backend = "openai", dataset = "random", dataset_path, rate = "inf", extra, label;
  int port = 8000;
  bench::ServeBench bench;
  bench::RandomLoad random;
  std::int64_t sharegpt_output = 0, warmups = 0, ready_timeout = 0;
  std::optional<double> temperature, top_p, min_p;
  std::optional<std::int64_t> top_k;
  std::vector<std::string> goodput, metadata, headers;
  std::string metrics = "ttft,tpot,itl", percentiles = "99", result_dir, result_file;
  bool json = false, save = false, detailed = false, quiet = false, insecure = false;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    if (comma > at) parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

double positive(const std::string& text, const char* flag) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0))
    fail(ErrorCode::usage, "{}: expected a number above 0, found {}", flag, quote(text));
  return value;
}

std::pair<std::string, std::string> key_value(const std::string& text, char by, const char* flag) {
  const std::size_t at = text.find(by);
  if (at == std::string::npos || at == 0)
    fail(ErrorCode::usage, "{}: expected KEY{}VALUE, found {}", flag, by, quote(text));
  return {text.substr(0, at), text.substr(at + 1)};
}

Json parse_reply(const server::HttpClient::Reply& reply, const std::string& what) {
  if (!reply.error.empty()) fail(ErrorCode::io, "{}: {}", what, reply.error);
  if (reply.status != 200) fail(ErrorCode::io, "{}: status {}: {}", what, reply.status, reply.body.substr(0, 300));
  return parse_json(reply.body, what);
}

void wait_until_ready(server::HttpClient& client, std::int64_t seconds, const server::Headers& headers) {
  const Stopwatch watch;
  while (watch.seconds() < static_cast<double>(seconds)) {
    const auto reply = client.request("GET", "/v1/models", "", headers);
    if (reply.status == 200) return;
    ::usleep(200'000);
  }
}

void read_options(BenchServeOptions& o) {
  if (o.url.empty()) o.url = fmt::format("http://{}:{}", o.host, o.port);
  bench::ServeBench& b = o.bench;
  b.chat = o.backend == "openai-chat";
  if (b.chat && b.endpoint == "/v1/completions") b.endpoint = "/v1/chat/completions";
  b.rate = o.rate == "inf" ? std::numeric_limits<double>::infinity() : positive(o.rate, "--request-rate");
  b.seed = o.random.seed;
  if (o.temperature) b.extra["temperature"] = *o.temperature;
  if (o.top_p) b.extra["top_p"] = *o.top_p;
  if (o.top_k) b.extra["top_k"] = *o.top_k;
  if (o.min_p) b.extra["min_p"] = *o.min_p;
  if (!o.extra.empty()) {
    const Json more = parse_json(o.extra, "--extra-body");
    if (!more.is_object()) fail(ErrorCode::usage, "--extra-body: expected an object");
    b.extra.update(more);
  }
  for (const std::string& goal : o.goodput) {
    const auto [metric, value] = key_value(goal, ':', "--goodput");
    if (metric != "ttft" && metric != "tpot" && metric != "e2el")
      fail(ErrorCode::usage, "--goodput: expected ttft, tpot or e2el, found {}", quote(metric));
    b.goodput[metric] = positive(value, "--goodput");
  }
  for (const std::string& header : o.headers) b.headers.push_back(key_value(header, '=', "--header"));
  if (const std::string key = env::get("OPENAI_API_KEY"); !key.empty())
    b.headers.emplace_back("Authorization", "Bearer " + key);
}

std::vector<bench::LoadRequest> make_load(BenchServeOptions& o, server::HttpClient& client) {
  const auto ask = [&](const char* path, const Json& body) {
    return parse_reply(client.request("POST", path, body.dump(), o.bench.headers), o.url + path);
  };
  if (o.dataset == "sharegpt") {
    if (o.dataset_path.empty()) fail(ErrorCode::usage, "--dataset-name sharegpt needs --dataset-path");
    return bench::sharegpt_load(
        o.dataset_path, o.random.count, o.sharegpt_output, o.random.seed, [&](const std::string& text) {
          return ask("/tokenize", {{"model", o.bench.model}, {"prompt", text}}).value("count", std::int64_t{0});
        });
  }
  constexpr std::int64_t kIdsOfAnyModel = 1000;
  const auto info = client.request("GET", "/tokenizer_info", "", o.bench.headers);
  o.random.vocab_size = info.status == 200
                            ? parse_json(info.body, "/tokenizer_info").value("vocab_size", kIdsOfAnyModel)
                            : kIdsOfAnyModel;
  std::vector<bench::LoadRequest> load = bench::random_load(o.random);
  if (o.bench.chat)
    for (bench::LoadRequest& request : load)
      request.prompt = ask("/detokenize", {{"model", o.bench.model}, {"tokens", request.prompt}}).value("prompt", "");
  return load;
}

void run_serve(BenchServeOptions& o) {
  read_options(o);
  bench::ServeReport report;
  report.metrics = split(o.metrics);
  for (const std::string& metric : report.metrics)
    if (metric != "ttft" && metric != "tpot" && metric != "itl" && metric != "e2el")
      fail(ErrorCode::usage, "--percentile-metrics: expected ttft, tpot, itl or e2el, found {}", quote(metric));
  report.percentiles.clear();
  for (const std::string& p : split(o.percentiles)) report.percentiles.push_back(positive(p, "--metric-percentiles"));

  server::HttpClient client(o.url, o.insecure);
  if (o.ready_timeout > 0) wait_until_ready(client, o.ready_timeout, o.bench.headers);
  if (o.bench.model.empty()) {
    const Json models = parse_reply(client.request("GET", "/v1/models", "", o.bench.headers), o.url + "/v1/models");
    if (!models.contains("data") || models["data"].empty()) fail(ErrorCode::bad_input, "{}: serves no model", o.url);
    o.bench.model = models["data"][0].value("id", "");
  }
  const std::vector<bench::LoadRequest> load = make_load(o, client);
  // One request before the clock runs, so that a server that refuses them all says so at once.
  const auto first = bench::run_load(client, o.bench, {load[0]}, [](std::size_t) {});
  if (!first[0].ok) fail(ErrorCode::bad_input, "{}: the first request failed: {}", o.url, first[0].error);
  if (o.warmups > 0)
    bench::run_load(client, o.bench, std::vector<bench::LoadRequest>(static_cast<std::size_t>(o.warmups), load[0]),
                    [](std::size_t) {});

  Progress progress("serving");
  const double processor = bench::processor_seconds();
  report.requests = bench::run_load(client, o.bench, load, [&](std::size_t done) {
    if (!o.quiet) progress.update(done, load.size());
  });
  for (const bench::ServedRequest& r : report.requests) report.duration = std::max(report.duration, r.last);
  if (report.duration == 0)
    fail(ErrorCode::bad_input, "{}: every request failed, the first one: {}", o.url, report.requests[0].error);
  report.client_share = (bench::processor_seconds() - processor) / report.duration;

  Json json = {{"date", fmt::format("{}", std::time(nullptr))},
               {"backend", o.backend},
               {"label", o.label.empty() ? Json(nullptr) : Json(o.label)}};
  json.update(report.json(o.bench));
  for (const std::string& pair : o.metadata) {
    const auto [key, value] = key_value(pair, '=', "--metadata");
    json[key] = value;
  }
  if (o.detailed) {
    for (const char* key : {"input_lens", "output_lens", "ttfts", "itls", "errors"}) json[key] = Json::array();
    for (const bench::ServedRequest& r : report.requests) {
      json["input_lens"].push_back(r.prompt_tokens);
      json["output_lens"].push_back(r.output_tokens);
      json["ttfts"].push_back(r.ttft());
      Json gaps = Json::array();
      for (std::size_t i = 1; i < r.chunks.size(); ++i) gaps.push_back(r.chunks[i] - r.chunks[i - 1]);
      json["itls"].push_back(std::move(gaps));
      json["errors"].push_back(r.error);
    }
  }
  fmt::print("{}", o.json ? json_line(json) : report.text(o.bench));
  if (o.save || !o.result_file.empty()) {
    const std::string name =
        o.result_file.empty() ? fmt::format("{}-{}.json", o.backend, std::time(nullptr)) : o.result_file;
    OutputFile file(o.result_dir.empty() ? name : o.result_dir + "/" + name);
    file.writer().append(json_line(json));
    file.commit();
  }
  for (const bench::ServedRequest& r : report.requests)
    if (!r.ok)
      fail(ErrorCode::bad_input, "{} requests failed, one of them: {}", json["failed"].get<std::size_t>(), r.error);
}

void add_serve_bench(CLI::App& bench) {
  auto o = std::make_shared<BenchServeOptions>();
  CLI::App* c = bench.add_subcommand("serve", "Load on a server, from its clients' side; as `vllm bench serve`");
  c->add_option("url,--base-url", o->url, "the server; otherwise --host and --port");
  c->add_option("--host", o->host)->capture_default_str();
  c->add_option("--port", o->port)->capture_default_str();
  c->add_option("--backend,--endpoint-type", o->backend, "openai (also vllm), or openai-chat")
      ->check(CLI::IsMember({"openai", "vllm", "openai-chat"}))
      ->capture_default_str();
  c->add_option("--endpoint", o->bench.endpoint)->capture_default_str();
  c->add_option("--model", o->bench.model, "the first of /v1/models if not given");
  c->add_flag("--insecure", o->insecure,
              "https: any certificate will do; else the system's authorities or SSL_CERT_FILE decide");
  c->add_option("--header", o->headers, "KEY=VALUE; OPENAI_API_KEY is sent as a key");
  c->add_option("--extra-body", o->extra, "a JSON object of more fields of every request");

  auto* load = c->add_option_group("load");
  load->add_option("--dataset-name", o->dataset)->check(CLI::IsMember({"random", "sharegpt"}))->capture_default_str();
  load->add_option("--dataset-path", o->dataset_path, "the file of sharegpt");
  load->add_option("--num-prompts", o->random.count)->check(kAtLeastOne)->capture_default_str();
  load->add_option("--random-input-len,--input-len", o->random.input)->check(kAtLeastOne)->capture_default_str();
  load->add_option("--random-output-len,--output-len", o->random.output)->check(kAtLeastOne)->capture_default_str();
  load->add_option("--random-range-ratio", o->random.ratio, "lengths differ by up to this share")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  load->add_option("--random-prefix-len", o->random.prefix, "tokens that all prompts begin with")
      ->check(count())
      ->capture_default_str();
  load->add_option("--sharegpt-output-len", o->sharegpt_output, "in place of the length of the answer that is there")
      ->check(kAtLeastOne);
  load->add_option("--request-rate", o->rate, "requests a second; inf: all at once")->capture_default_str();
  load->add_option("--burstiness", o->bench.burstiness, "1: a Poisson process; less: in bursts")
      ->check(CLI::Range(1e-3, 1e6))
      ->capture_default_str();
  load->add_option("--max-concurrency", o->bench.max_concurrency, "open requests at a time")->check(kAtLeastOne);
  load->add_option("--num-warmups", o->warmups)->check(count())->capture_default_str();
  load->add_option("--seed", o->random.seed)->check(count())->capture_default_str();
  load->add_flag("--ignore-eos", o->bench.ignore_eos, "every request generates its whole length");
  load->add_option("--temperature", o->temperature, "the server's default if not given");
  load->add_option("--top-p", o->top_p);
  load->add_option("--top-k", o->top_k);
  load->add_option("--min-p", o->min_p);
  load->add_option("--ready-check-timeout-sec", o->ready_timeout, "waits so long for the server")
      ->check(count())
      ->capture_default_str();

  auto* report = c->add_option_group("report");
  report->add_option("--percentile-metrics", o->metrics)->capture_default_str();
  report->add_option("--metric-percentiles", o->percentiles)->capture_default_str();
  report->add_option("--goodput", o->goodput, "ttft:MS, tpot:MS, e2el:MS: counts the requests that keep them");
  report->add_flag("--save-result", o->save, "writes the JSON to a file");
  report->add_flag("--save-detailed", o->detailed, "with every request's times");
  report->add_option("--result-dir", o->result_dir);
  report->add_option("--result-filename", o->result_file);
  report->add_option("--label", o->label);
  report->add_option("--metadata", o->metadata, "KEY=VALUE for the JSON");
  report->add_flag("--disable-tqdm", o->quiet, "no progress bar");
  report->add_flag("--json", o->json, "the JSON on standard output instead of the block");
  c->footer(
      "TTFT: from sending a request to its first chunk. TPOT: (end - first chunk) / (tokens - 1) of each request. ITL: "
      "between chunks,\nof all requests together. E2EL: from sending to the last chunk. A request that waits for "
      "--max-concurrency has not been sent.\nThroughputs are of the time from the first request to the last chunk. "
      "Exits with 1 if a request failed.\n\nExamples:\n"
      "  lowp bench serve http://127.0.0.1:8000 --num-prompts 100 --random-input-len 128 --random-output-len 128 "
      "--ignore-eos\n"
      "  lowp bench serve --port 8080 --max-concurrency 32 --temperature 0 --goodput ttft:200 tpot:50 --json");
  c->callback([o] { run_serve(*o); });
}

// ---- throughput and latency

struct OfflineOptions {
  std::string model, shapes, recipe = "bf16", dataset_path;
  ModelOptions load;
  bench::RandomLoad random;
  engine::Budget budget;
  std::optional<std::int64_t> step_tokens;
  std::int64_t batch = 8, warmups = 10, runs = 30;
  bool json = false;
};

std::unique_ptr<models::Model> load_model(OfflineOptions& o) {
  if (o.model.empty() == o.shapes.empty()) fail(ErrorCode::usage, "takes either MODEL or --shapes NAME");
  models::LoadOptions load = load_options(o.load);
  o.budget.tokens = o.step_tokens.value_or(step_tokens(load.device));
  if (o.shapes.empty()) {
    load.recipe = formats::recipe(o.recipe);
    return std::make_unique<models::Model>(o.model, load);
  }
  return std::make_unique<models::Model>(models::shape(o.shapes), formats::recipe(o.recipe), load);
}

void run_throughput(OfflineOptions& o) {
  const auto model = load_model(o);
  std::vector<bench::LoadRequest> load;
  o.random.vocab_size = model->config().vocab_size;
  if (o.dataset_path.empty()) {
    load = bench::random_load(o.random);
  } else {
    if (o.model.empty()) fail(ErrorCode::usage, "--dataset-path needs MODEL for its tokenizer");
    const text::Tokenizer tokenizer = load_tokenizer(o.model);
    load = bench::sharegpt_load(o.dataset_path, o.random.count, 0, o.random.seed, [&](const std::string& text) {
      return static_cast<std::int64_t>(tokenizer.encode(text, true).size());
    });
    for (bench::LoadRequest& request : load) request.prompt = tokenizer.encode(request.prompt.get<std::string>(), true);
  }
  engine::Engine engine(*model, {.max_waiting = load.size(), .prefix_cache = true});
  const bench::Throughput t = bench::run_throughput(engine, o.budget, load);
  const auto rate = [&](std::int64_t n) { return static_cast<double>(n) / t.seconds; };
  if (o.json)
    fmt::print("{}", json_line({{"elapsed_time", t.seconds},
                                {"num_requests", t.requests},
                                {"total_num_tokens", t.prompt_tokens + t.output_tokens},
                                {"requests_per_second", rate(t.requests)},
                                {"tokens_per_second", rate(t.prompt_tokens + t.output_tokens)},
                                {"output_tokens_per_second", rate(t.output_tokens)}}));
  else
    fmt::print(
        "Throughput: {:.2f} requests/s, {:.2f} total tokens/s, {:.2f} output tokens/s\n"
        "Total num prompt tokens:  {}\nTotal num output tokens:  {}\n",
        rate(t.requests), rate(t.prompt_tokens + t.output_tokens), rate(t.output_tokens), t.prompt_tokens,
        t.output_tokens);
}

void run_latency(OfflineOptions& o) {
  const auto model = load_model(o);
  engine::Engine engine(*model, {});
  constexpr std::int64_t kIds = 10'000;
  const std::vector<double> seconds = bench::run_latency(engine, o.budget, o.batch, o.random.input, o.random.output,
                                                         o.warmups, o.runs, std::min(kIds, model->config().vocab_size));
  double mean = 0;
  for (const double s : seconds) mean += s / static_cast<double>(seconds.size());
  Json percentiles = Json::object();
  std::string lines;
  for (const int p : {10, 25, 50, 75, 90, 99}) {
    percentiles[std::to_string(p)] = bench::percentile(seconds, p);
    lines += fmt::format("{}% percentile latency: {} seconds\n", p, bench::percentile(seconds, p));
  }
  if (o.json)
    fmt::print("{}", json_line({{"avg_latency", mean}, {"latencies", seconds}, {"percentiles", percentiles}}));
  else
    fmt::print("Avg latency: {} seconds\n{}", mean, lines);
}

CLI::App* add_offline(CLI::App& bench, const char* name, const char* what, const std::shared_ptr<OfflineOptions>& o) {
  CLI::App* c = bench.add_subcommand(name, what);
  c->add_option("model", o->model, "a model folder, in any dialect");
  c->add_option("--shapes", o->shapes, "random weights in the shapes of a model, instead of MODEL");
  c->add_option("--recipe", o->recipe,
                "of the random weights, or of a MODEL of floats, which is quantized while it loads")
      ->capture_default_str();
  c->add_option("--input-len", o->random.input, "tokens of a prompt")->check(kAtLeastOne)->capture_default_str();
  c->add_option("--output-len", o->random.output, "tokens generated for each")
      ->check(kAtLeastOne)
      ->capture_default_str();
  c->add_option("--max-num-seqs", o->budget.sequences, "sequences that run at a time")
      ->check(kAtLeastOne)
      ->capture_default_str();
  add_step_tokens(*c, o->step_tokens);
  c->add_flag("--json", o->json, "one JSON object on standard output");
  add_model_options(*c, o->load);
  return c;
}

}  // namespace

void add_serving_benches(CLI::App& bench) {
  add_serve_bench(bench);
  auto throughput = std::make_shared<OfflineOptions>();
  CLI::App* c = add_offline(bench, "throughput", "Many requests through the engine, without a server", throughput);
  c->add_option("--num-prompts", throughput->random.count)->check(kAtLeastOne)->capture_default_str();
  c->add_option("--dataset-path", throughput->dataset_path, "ShareGPT's file, in place of random prompts");
  c->add_option("--seed", throughput->random.seed)->check(count())->capture_default_str();
  c->footer(
      "Temperature 1, every request generates its whole length; the time is without loading. As `vllm bench "
      "throughput`.\n\nExamples:\n  lowp bench throughput models/bookworm-8m --num-prompts 100 --input-len 128 "
      "--output-len 128");
  c->callback([throughput] { run_throughput(*throughput); });

  auto latency = std::make_shared<OfflineOptions>();
  latency->random.input = 32;
  c = add_offline(bench, "latency", "One batch through the engine, without a server", latency);
  c->add_option("--batch-size", latency->batch)->check(kAtLeastOne)->capture_default_str();
  c->add_option("--num-iters-warmup", latency->warmups)->check(count())->capture_default_str();
  c->add_option("--num-iters", latency->runs)->check(kAtLeastOne)->capture_default_str();
  c->footer(
      "Seconds from submitting a batch to its last token. As `vllm bench latency`.\n\nExamples:\n"
      "  lowp bench latency --shapes llama-3.2-1b --recipe int8-int8 --batch-size 8 --num-iters 5 --num-iters-warmup "
      "1");
  c->callback([latency] { run_latency(*latency); });
}

}  // namespace lowp::cli
