#include "cli/generation.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/stop_text.h"
#include "lowp/text/stream_decoder.h"

namespace lowp::cli {
namespace {

volatile sig_atomic_t interrupted = 0;
struct sigaction before;

// The options, once those that need no model make sense.
const GenerationOptions& checked(const GenerationOptions& options) {
  load_options(options.load);
  for (const std::string& stop : options.stop) check_text(stop, "--stop");
  engine::Sampling given;
  given.temperature = options.temperature.value_or(given.temperature);
  given.top_k = options.top_k.value_or(given.top_k);
  given.top_p = options.top_p.value_or(given.top_p);
  given.min_p = options.min_p.value_or(given.min_p);
  if (const auto bad = engine::check(given)) {
    std::string flag = bad->message;
    std::replace(flag.begin(), flag.begin() + static_cast<std::ptrdiff_t>(bad->name.size()), '_', '-');
    fail(ErrorCode::usage, "--{}", flag);
  }
  return options;
}

engine::Sampling merged(const GenerationOptions& options, const engine::GenerationConfig& defaults) {
  engine::Sampling s = defaults.sampling();
  // A temperature given overrides do_sample: false; one not given does not.
  s.temperature = options.temperature.value_or(s.temperature);
  s.top_k = options.top_k.value_or(s.top_k);
  s.top_p = options.top_p.value_or(s.top_p);
  s.min_p = options.min_p.value_or(s.min_p);
  return s;
}

}  // namespace

void add_generation_options(CLI::App& command, GenerationOptions& options) {
  command
      .add_option("model", options.model,
                  "a folder, a safetensors or GGUF file, or org/name in the local Hugging Face cache")
      ->required();
  command.add_option("--temperature,--temp", options.temperature,
                     "0: always the likeliest token; 1: the model's own probabilities");
  command.add_option("--top-k", options.top_k, "only from the k likeliest tokens; 0: all");
  command.add_option("--top-p", options.top_p, "only from the likeliest tokens that together have this probability");
  command.add_option("--min-p", options.min_p, "only from tokens with this share of the likeliest one's probability");
  command.add_option("--seed", options.seed, "the same seed gives the same text")
      ->check(count())
      ->capture_default_str();
  command.add_option("--stop", options.stop, "end before this text; may be given more than once")
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", options.ignore_eos, "go on where the model would end");
  add_recipe_option(command, options.load);
  add_model_options(command, options.load);
}

CLI::Validator count() {
  const auto problem = [](const std::string& text) {
    const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
    return digits ? std::string() : fmt::format("expected a count, found {}", quote(text));
  };
  return CLI::Validator(problem, "");
}

Interrupt::Interrupt() {
  interrupted = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &before);
}

Interrupt::~Interrupt() { ::sigaction(SIGINT, &before, nullptr); }

bool Interrupt::asked() { return interrupted != 0; }

Generator::Generator(const GenerationOptions& options)
    : options_(checked(options)),
      defaults_(generation_config(options.model)),
      tokenizer_(load_tokenizer(options.model)),
      model_(options.model, load_options(options.load)),
      sampling_(merged(options, defaults_)),
      engine_(model_,
              {.vocab_limit = static_cast<std::int64_t>(tokenizer_.vocab_size()), .eos_ids = defaults_.eos_ids}) {
  if (::isatty(STDERR_FILENO))
    fmt::print(stderr, "{}: {} on {}, {} of weights, {} tokens of context\n", options.model, model_.recipe(),
               device_name(model_.options().device), human_bytes(model_.weight_bytes()), context());
}

std::int64_t Generator::max_tokens(std::int64_t otherwise) const {
  return options_.max_tokens.value_or(defaults_.max_new_tokens.value_or(otherwise));
}

Generated Generator::run(std::vector<std::int32_t> prompt, std::int64_t max_tokens, std::uint64_t seed,
                         const std::function<void(std::string_view)>& show) {
  Generated result;
  result.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  engine::Request request{.id = ++requests_,
                          .prompt = std::move(prompt),
                          .max_new_tokens = max_tokens,
                          .ignore_eos = options_.ignore_eos,
                          .sampling = sampling_};
  request.sampling.seed = seed;
  if (const engine::Admit admit = engine_.submit(std::move(request)); !admit)
    fail(ErrorCode::bad_input, "{}: {}", options_.model, admit.message);

  const Interrupt interrupt;
  const Stopwatch watch;
  text::StreamDecoder decoder(tokenizer_, true);
  text::StopText stop(options_.stop);
  const auto pass = [&](const std::string& text) {
    if (const std::string shown = stop.push(text); !shown.empty()) show(shown);
  };
  std::optional<engine::Finished> end;
  // Of the prompt at a time: as much as takes kHeard seconds, so that Ctrl-C is heard during a long one.
  constexpr double kHeard = 0.25;
  constexpr std::int64_t kLeastPiece = 32, kMostPiece = 2048;
  std::int64_t piece = 64;
  while (!engine_.idle()) {
    if (Interrupt::asked()) engine_.cancel(requests_);
    const Stopwatch step;
    const std::vector<engine::Event> events = engine_.step({.tokens = piece});
    if (result.tokens.empty())
      piece = std::clamp(static_cast<std::int64_t>(kHeard / step.seconds() * static_cast<double>(piece)), kLeastPiece,
                         std::min(2 * piece, kMostPiece));
    for (const engine::Event& event : events) {
      if (const auto* finished = std::get_if<engine::Finished>(&event.what)) end = *finished;
      const auto* token = std::get_if<engine::NewToken>(&event.what);
      if (!token || stop.stopped()) continue;
      if (result.tokens.empty()) result.prompt_seconds = watch.seconds();
      result.tokens.push_back(token->token);
      pass(decoder.push(token->token));
      if (stop.stopped()) engine_.cancel(requests_);
    }
  }
  pass(decoder.flush());
  if (const std::string rest = stop.flush(); !rest.empty()) show(rest);
  result.answer_seconds = watch.seconds() - result.prompt_seconds;
  if (end->reason == engine::FinishReason::error) fail(ErrorCode::bad_input, "{}: {}", options_.model, end->message);
  result.finish_reason = stop.stopped() ? "stop" : engine::name(end->reason);
  return result;
}

void check_text(std::string_view text, std::string_view what) {
  if (text.empty()) fail(ErrorCode::usage, "{}: the text is empty", what);
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos)
    fail(ErrorCode::usage, "{}: byte {} (0x{:02x}) is not UTF-8", what, at, static_cast<unsigned char>(text[at]));
}

}  // namespace lowp::cli
