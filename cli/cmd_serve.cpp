#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <limits>
#include <memory>
#include <sstream>
#include <thread>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/engine/generation_config.h"
#include "lowp/server/api.h"
#include "lowp/server/load_line.h"
#include "lowp/server/memory_plan.h"

namespace lowp::cli {
namespace {

struct ServeOptions {
  std::string model;
  std::vector<std::string> names;
  ModelOptions load;
  server::HttpOptions http;
  std::vector<std::string> api_keys;
  std::string api_key_file, metrics_compat, chat_template;
  std::vector<std::string> allowed_hosts, allowed_origins;
  std::int64_t context = 0, sequences = 64, max_queue = 256;
  std::optional<std::int64_t> step_tokens;
  std::int64_t prompt_tokens = std::numeric_limits<std::int64_t>::max();
  std::uint64_t kv_memory = 0;
  double memory_share = 0.8;
  bool no_prefix_cache = false;
  std::int64_t shutdown_timeout = 30, request_timeout = 600, log_interval = 10;
};

models::LoadOptions reporting(models::LoadOptions load, server::Api& api) {
  load.progress = [&api](double share) { api.loading(share); };
  return load;
}

constexpr int kInterrupted = 128;  // plus the signal: the shell's convention

std::vector<std::string> read_api_keys(const ServeOptions& options) {
  std::vector<std::string> keys = options.api_keys;
  if (const std::string key = env::get("LOWP_API_KEY"); !key.empty()) keys.push_back(key);
  if (!options.api_key_file.empty()) {
    std::istringstream lines(read_text(options.api_key_file));
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) keys.push_back(line);
    if (keys.empty()) fail(ErrorCode::bad_input, "{}: no key in it", options.api_key_file);
  }
  return keys;
}

// What is there once the model is loaded.
class Loaded {
 public:
  Loaded(const ServeOptions& options, server::Api& api)
      : config_(read_tokenizer_config(options.model)),
        defaults_(generation_config(options.model)),
        tokenizer_(load_tokenizer(options.model)),
        chat_template_(load_chat_template(options.model, options.chat_template)),
        model_(options.model, reporting(load_options(options.load), api)),
        plan_(server::plan_memory(model_, options.context, options.sequences, options.kv_memory, options.memory_share)),
        constraints_(std::make_shared<server::TokenBytes>(
            tokenizer_, engine::merged_ids(defaults_.eos_ids, model_.config().eos_ids))),
        engine_(model_, {.context = plan_.context,
                         .vocab_limit = static_cast<std::int64_t>(tokenizer_.vocab_size()),
                         .max_waiting = static_cast<std::size_t>(-1),  // the thread bounds the queue
                         .eos_ids = defaults_.eos_ids,
                         .kv_pages = plan_.pages,
                         .prefix_cache = !options.no_prefix_cache}) {
    served_.names = options.names;
    if (served_.names.empty())
      served_.names.push_back(std::filesystem::path(options.model + "/").parent_path().filename().string());
    served_.tokenizer = &tokenizer_;
    served_.constraints = &constraints_;
    if (chat_template_) served_.chat_template = &*chat_template_;
    served_.defaults = defaults_.sampling();
    served_.max_tokens = defaults_.max_new_tokens;
    served_.context = engine_.context();
    served_.vocab_size = model_.config().vocab_size;
    served_.created =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    served_.tokenizer_info = tokenizer_info().dump();
    thread_ = std::make_unique<server::EngineThread>(
        engine_,
        engine::Budget{.tokens = options.step_tokens.value_or(step_tokens(model_.options().device)),
                       .sequences = options.sequences,
                       .prompt_tokens = options.prompt_tokens},
        static_cast<std::size_t>(options.max_queue),
        [&api](std::vector<engine::Event> events, server::Clock::time_point step) {
          api.deliver(std::move(events), step);
        },
        [&api](const std::string& why) {
          fmt::print(stderr, "lowp: error: the engine failed: {}\n", why);
          api.break_down();
        });
  }

  const server::ServedModel& served() const { return served_; }
  server::EngineThread& thread() { return *thread_; }
  const models::Model& model() const { return model_; }
  const server::MemoryPlan& plan() const { return plan_; }

 private:
  // What clients ask that bring no tokenizer of their own.
  Json tokenizer_info() const {
    Json info = config_.is_object() ? config_ : Json::object();
    info.update(special_tokens(config_));
    const auto& eos = defaults_.eos_ids.empty() ? model_.config().eos_ids : defaults_.eos_ids;
    if (!info.contains("eos_token") && !eos.empty() && tokenizer_.token(eos.front()))
      info["eos_token"] = *tokenizer_.token(eos.front());
    info["vocab_size"] = tokenizer_.vocab_size();
    if (chat_template_) info["chat_template"] = chat_template_->source();
    return info;
  }

  const Json config_;
  const engine::GenerationConfig defaults_;
  const text::Tokenizer tokenizer_;
  const std::optional<text::ChatTemplate> chat_template_;
  models::Model model_;
  const server::MemoryPlan plan_;
  server::Constraints constraints_;
  engine::Engine engine_;
  server::ServedModel served_;
  std::unique_ptr<server::EngineThread> thread_;
};

void announce(const ServeOptions& options, const Loaded& loaded, double seconds, std::uint16_t port) {
  const server::MemoryPlan& plan = loaded.plan();
  fmt::print(stderr,
             "{}: {} on {}, {} of weights in {:.1f} s\n"
             "memory: {} for keys and values of {} tokens ({} pages), {} sequences of up to {} tokens; {} available\n"
             "listening on {}://{}:{}\n",
             loaded.served().names.front(), loaded.model().recipe(), device_name(loaded.model().options().device),
             human_bytes(plan.weights), seconds, human_bytes(plan.kv_bytes()), plan.kv_tokens(), plan.pages,
             options.sequences, plan.context, human_bytes(plan.available),
             options.http.certificates.empty() ? "http" : "https", options.http.host, port);
}

void serve(ServeOptions options) {
  if (options.http.key.empty()) options.http.key = options.http.certificates;
  load_options(options.load);  // before anything is opened
  const std::vector<std::string> keys = read_api_keys(options);
  std::unique_ptr<server::Api> api;
  server::HttpServer http(options.http,
                          [&](std::shared_ptr<server::Exchange> exchange) { api->handle(std::move(exchange)); });
  api = std::make_unique<server::Api>(
      http, server::ApiOptions{.version = LOWP_VERSION,
                               .metrics_prefix = options.metrics_compat == "vllm" ? "vllm:" : "lowp:",
                               .api_keys = keys,
                               .allowed_hosts = options.allowed_hosts,
                               .allowed_origins = options.allowed_origins,
                               .max_waiting = static_cast<std::size_t>(options.max_queue),
                               .request_timeout = std::chrono::seconds(options.request_timeout)});
  const bool local =
      options.http.host == "localhost" || options.http.host == "::1" || options.http.host.starts_with("127.");
  if (!local && keys.empty())
    fmt::print(stderr, "lowp: warning: everybody who reaches {} may use this server: there is no --api-key\n",
               options.http.host);

  std::unique_ptr<Loaded> loaded;
  std::exception_ptr failure;
  std::thread loader([&] {
    const Stopwatch watch;
    try {
      auto ready = std::make_shared<std::unique_ptr<Loaded>>(std::make_unique<Loaded>(options, *api));
      http.post([&, ready, seconds = watch.seconds()] {
        loaded = std::move(*ready);
        api->serve(loaded->served(), loaded->thread(), seconds);
        announce(options, *loaded, seconds, http.port());
      });
    } catch (...) {
      http.post([&, thrown = std::current_exception()] {
        failure = thrown;
        http.stop();
      });
    }
  });
  engine::Metrics before;
  const auto log = [&] {
    if (!loaded) return;
    const engine::Metrics now = loaded->thread().metrics();
    const std::string line =
        server::load_line(std::exchange(before, now), now, static_cast<double>(options.log_interval));
    if (!line.empty()) fmt::print(stderr, "{}\n", line);
  };
  if (options.log_interval > 0) http.every(std::chrono::seconds(options.log_interval), log);
  http.on_signal([&](int signal) {
    if (!loaded || api->draining()) ::_exit(kInterrupted + signal);  // nothing to lose, or asked twice
    fmt::print(stderr, "finishing {} sequences; once more to stop at once\n", api->active());
    api->drain(std::chrono::seconds(options.shutdown_timeout), [&] { http.stop(); });
  });
  http.run();
  loader.join();
  loaded.reset();
  api.reset();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model over HTTP, as OpenAI's API");
  command
      ->add_option("model,-m,--model", options->model,
                   "a folder, a safetensors or GGUF file, or org/name in the local Hugging Face cache")
      ->required();
  command->add_option("--served-model-name", options->names, "what clients call the model; the first is its own");

  command->add_option("--chat-template", options->chat_template,
                      "a file with the Jinja template of /v1/chat/completions in place of the model's, or plain");

  auto* network = command->add_option_group("network");
  network->add_option("--host", options->http.host, "address to listen on; 0.0.0.0: all")->capture_default_str();
  network->add_option("--port", options->http.port, "0: any free one")->capture_default_str();
  auto* certificates = network->add_option(
      "--ssl-certfile", options->http.certificates,
      "serve over TLS (https): the certificate in PEM, those that vouch for it behind it in the same file");
  network
      ->add_option("--ssl-keyfile", options->http.key, "its key in PEM, not encrypted; if not given, in --ssl-certfile")
      ->needs(certificates);
  network->add_option("--api-key", options->api_keys,
                      "a key that opens; may be given more than once; also LOWP_API_KEY");
  network->add_option("--api-key-file", options->api_key_file, "a file with one key a line");
  network->add_option("--allowed-hosts", options->allowed_hosts, "names by which clients may call; *: any");
  network->add_option("--allowed-origins", options->allowed_origins, "origins whose pages may call; *: any");
  network->add_option("--max-body", options->http.body_bytes, "most bytes of a request")->capture_default_str();
  network->add_option("--max-connections", options->http.connections, "open at a time")->capture_default_str();
  network->add_option("--request-timeout", options->request_timeout, "seconds until a request fails")
      ->check(kAtLeastOne)
      ->capture_default_str();
  network
      ->add_option("--shutdown-timeout", options->shutdown_timeout,
                   "seconds that running requests have after SIGTERM or Ctrl-C")
      ->capture_default_str();
  network
      ->add_option("--log-interval", options->log_interval,
                   "seconds between lines about tokens and memory, while something runs; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  network->add_option("--metrics-compat", options->metrics_compat, "vllm: metrics are called vllm:...")
      ->check(CLI::IsMember({"vllm"}));

  auto* schedule = command->add_option_group("scheduling and memory");
  schedule
      ->add_option("--max-model-len,--ctx-size,-c", options->context,
                   "most tokens of a sequence; the model's, or what fits, if not given")
      ->check(kAtLeastOne);
  schedule->add_option("--max-num-seqs,--parallel", options->sequences, "sequences that run at a time")
      ->check(kAtLeastOne)
      ->capture_default_str();
  add_step_tokens(*schedule, options->step_tokens);
  schedule
      ->add_option("--max-num-prompt-tokens", options->prompt_tokens,
                   "of these, prompts' in a step in which others generate; all, if not given. Fewer make answers come "
                   "more evenly beside prompts, and all of it later")
      ->check(kAtLeastOne);
  schedule->add_option("--max-queue", options->max_queue, "sequences that wait; more are refused with 429")
      ->check(kAtLeastOne)
      ->capture_default_str();
  schedule->add_option("--kv-cache-memory", options->kv_memory, "bytes for keys and values, as 2GiB")
      ->transform(CLI::AsSizeValue(false));
  schedule
      ->add_option("--memory-utilization", options->memory_share,
                   "or this share of the memory available once the model is loaded")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  schedule->add_flag("--no-enable-prefix-caching,--no-prefix-cache", options->no_prefix_cache,
                     "do not keep prompts for others that begin the same");
  add_recipe_option(*command, options->load);
  add_model_options(*command, options->load);
  command->footer(
      "Listens at once: /health says 200, /ready 503 until the model is loaded. Sampling parameters that a request "
      "does "
      "not\nname come from generation_config.json. SIGTERM and Ctrl-C let running requests finish.\n\nExamples:\n"
      "  lowp serve models/bookworm-8m\n"
      "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"It was\", \"max_tokens\": 20, \"stream\": "
      "true}'\n"
      "  lowp serve bookworm-int4 --host 0.0.0.0 --port 8080 --api-key SECRET --max-num-seqs 16");
  command->callback([options] { serve(*options); });
}

}  // namespace lowp::cli
