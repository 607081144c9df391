#include <fmt/format.h>
#include <poll.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cli/command.h"
#include "cli/generation.h"
#include "cli/output.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"
#include "lowp/base/nearest.h"

namespace lowp::cli {
namespace {

constexpr std::int64_t kAnswerTokens = 256;

struct ChatOptions {
  GenerationOptions generation;
  std::string chat_template, system;
  bool no_history = false;
};

constexpr const char* kHelp =
    "/help   this list\n"
    "/reset  start over (also /clear)\n"
    "/stats  speed and memory of the last answer\n"
    "/exit   leave (also /bye, /quit, Ctrl-D)\n"
    "A line that ends in \\ goes on in the next; lines between \"\"\" and \"\"\" are one message. Ctrl-C stops an "
    "answer.\n";

// Lines of the user: edited and remembered on a terminal, plain otherwise.
class Input {
 public:
  explicit Input(bool remember) : terminal_(::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) {
    if (!terminal_) return;
    rl_bind_key('\t', rl_insert);
    rl_getc_function = read_key;
    const std::string home = env::get("HOME");
    if (!remember || home.empty()) return;
    file_ = home + "/.lowp_history";
    ::read_history(file_.c_str());
  }
  ~Input() {
    if (file_.empty()) return;
    ::stifle_history(1000);
    ::write_history(file_.c_str());
  }

  bool terminal() const { return terminal_; }

  enum class End { line, interrupted, eof };
  End line(const char* prompt, std::string& out) {
    out.clear();
    if (!terminal_) return plain(out);
    const Interrupt interrupt;
    char* text = ::readline(prompt);
    if (Interrupt::asked()) {
      std::free(text);
      std::fputs("\n", stdout);
      return End::interrupted;
    }
    if (!text) return End::eof;
    out = text;
    std::free(text);
    if (!out.empty()) ::add_history(out.c_str());
    return End::line;
  }

 private:
  // As readline's own, but Ctrl-C ends the line. A signal that comes just before a blocking read would wait for the
  // next key, so the terminal is polled.
  static int read_key(std::FILE* file) {
    constexpr int kMilliseconds = 50;
    for (;;) {
      ::rl_check_signals();
      if (Interrupt::asked()) return READERR;
      pollfd terminal{::fileno(file), POLLIN, 0};
      if (::poll(&terminal, 1, kMilliseconds) <= 0) continue;
      unsigned char key;
      const auto count = ::read(terminal.fd, &key, 1);
      if (count == 1) return key;
      if (count == 0 || errno != EINTR) return EOF;
    }
  }

  static End plain(std::string& out) {
    int c;
    while ((c = std::getchar()) != EOF && c != '\n') out += static_cast<char>(c);
    return c == EOF && out.empty() ? End::eof : End::line;
  }

  bool terminal_;
  std::string file_;
};

// A message: a line, lines joined by a backslash at their end, or a """ block.
Input::End read_message(Input& input, std::string& message) {
  constexpr std::string_view kQuotes = "\"\"\"";
  Input::End end = input.line("> ", message);
  const bool block = message.starts_with(kQuotes);
  if (block) message.erase(0, kQuotes.size());
  std::string next;
  while (end == Input::End::line) {
    if (block && message.ends_with(kQuotes)) {
      message.resize(message.size() - kQuotes.size());
      if (message.starts_with('\n')) message.erase(0, 1);
      if (message.ends_with('\n')) message.pop_back();
      return end;
    }
    if (!block && !message.ends_with('\\')) return end;
    if (!block) message.pop_back();
    end = input.line(". ", next);
    if (end == Input::End::line) message += "\n" + next;
  }
  return end == Input::End::eof && !message.empty() ? Input::End::line : end;
}

class Chat {
 public:
  explicit Chat(const ChatOptions& options)
      : options_(options),
        template_(load_chat_template(options.generation.model, options.chat_template)),
        generator_(options.generation),
        input_(!options.no_history) {
    if (!template_ && !options.system.empty())
      fail(ErrorCode::usage, "--system: the model has no chat template; see --chat-template");
    reset();
  }

  void run() {
    if (!template_) note("The model has no chat template: it continues your text.");
    if (input_.terminal()) note("/help lists the commands.");
    std::string message;
    for (;;) {
      switch (read_message(input_, message)) {
        case Input::End::eof:
          return end();
        case Input::End::interrupted:
          note("/exit or Ctrl-D leaves.");
          continue;
        case Input::End::line:
          break;
      }
      if (message.empty()) continue;
      if (message.front() != '/')
        answer(message);
      else if (!command(message))
        return;
    }
  }

 private:
  template <typename... Args>
  static void note(fmt::format_string<Args...> format, Args&&... args) {
    fmt::print(stderr, "{}\n", fmt::format(format, std::forward<Args>(args)...));
  }

  void reset() {
    text_.clear();
    messages_ = Json::array();
    if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
  }

  void end() const {
    if (input_.terminal()) std::fputs("\n", stdout);
  }

  // False to leave.
  bool command(const std::string& line) {
    if (line == "/exit" || line == "/bye" || line == "/quit") return false;
    if (line == "/help") {
      std::fputs(kHelp, stderr);
    } else if (line == "/reset" || line == "/clear") {
      reset();
      note("Nothing was said yet.");
    } else if (line == "/stats") {
      stats();
    } else {
      const std::vector<std::string> names = {"/help", "/reset", "/stats", "/exit"};
      note("{}: no such command{}; /help lists them", quote(line), did_you_mean(line, names));
    }
    return true;
  }

  void stats() const {
    const auto speed = [](std::int64_t tokens, double seconds) {
      return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
    };
    const auto answered = static_cast<std::int64_t>(last_.tokens.size());
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    note("prompt   {} tokens, {:.2f} s, {:.1f} tokens/s", last_.prompt_tokens, last_.prompt_seconds,
         speed(last_.prompt_tokens, last_.prompt_seconds));
    note("answer   {} tokens, {:.2f} s, {:.1f} tokens/s", answered, last_.answer_seconds,
         speed(answered - 1, last_.answer_seconds));
    note("context  {} of {} tokens", text_.size(), generator_.context());
    note("memory   {} at most", human_bytes(static_cast<std::uint64_t>(usage.ru_maxrss) * 1024));
  }

  // A failure is the message's, not the program's.
  void answer(const std::string& message) try {
    check_text(message, "message");
    template_ ? answer_message(message) : continue_text(message);
  } catch (const Error& e) {
    note("error: {}", e.what());
  }

  // What the model says to a prompt, shown as it comes.
  std::string generate(std::vector<std::int32_t> prompt) {
    std::string said;
    const auto show = [&](std::string_view part) {
      said += part;
      std::fwrite(part.data(), 1, part.size(), stdout);
      std::fflush(stdout);
    };
    last_ = generator_.run(std::move(prompt), generator_.max_tokens(kAnswerTokens), options_.generation.seed + turns_++,
                           show);
    std::fputs("\n", stdout);
    std::fflush(stdout);
    return said;
  }

  void answer_message(const std::string& message) {
    Json messages = messages_;
    messages.push_back({{"role", "user"}, {"content", message}});
    const auto prompt = [&] { return template_->prompt({.messages = messages}, generator_.tokenizer()).ids; };
    std::vector<std::int32_t> ids = prompt();
    const std::size_t first = options_.system.empty() ? 0 : 1;
    const auto fits = [&] {
      return static_cast<std::int64_t>(ids.size()) + generator_.max_tokens(kAnswerTokens) <= generator_.context();
    };
    for (bool said = false; !fits() && messages.size() > first + 2; ids = prompt()) {
      if (!std::exchange(said, true))
        note("(forgetting the first messages: the context has {} tokens)", generator_.context());
      messages.erase(first);
      messages.erase(first);
    }
    text_ = ids;
    messages.push_back({{"role", "assistant"}, {"content", generate(std::move(ids))}});
    messages_ = std::move(messages);
  }

  void continue_text(const std::string& message) {
    const auto added = generator_.tokenizer().encode(text_.empty() ? message : "\n" + message, text_.empty());
    std::vector<std::int32_t> text = text_;
    text.insert(text.end(), added.begin(), added.end());
    make_room(text, added.size());
    generate(text);
    text_ = std::move(text);
    text_.insert(text_.end(), last_.tokens.begin(), last_.tokens.end());
  }

  // Forgets the oldest of what came before the message if an answer would not fit.
  void make_room(std::vector<std::int32_t>& text, std::size_t added) const {
    const auto size = static_cast<std::int64_t>(text.size()), before = size - static_cast<std::int64_t>(added);
    const std::int64_t excess =
        std::clamp(size + generator_.max_tokens(kAnswerTokens) - generator_.context(), std::int64_t{0}, before);
    if (excess == 0) return;
    note("(forgetting the first {} tokens: the context has {})", excess, generator_.context());
    text.erase(text.begin(), text.begin() + excess);
  }

  ChatOptions options_;
  std::optional<text::ChatTemplate> template_;
  Generator generator_;
  Input input_;
  Json messages_;                   // so far, if there is a template
  std::vector<std::int32_t> text_;  // so far, of both
  Generated last_;
  std::uint64_t turns_ = 0;
};

}  // namespace

void add_chat(CLI::App& app) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model");
  add_generation_options(*command, options->generation);
  command
      ->add_option("-n,--max-tokens", options->generation.max_tokens,
                   "most tokens of an answer; if not given, max_new_tokens of generation_config.json, or 256")
      ->check(count());
  command->add_option("--chat-template", options->chat_template,
                      "a file with a Jinja template in place of the model's, or plain");
  command->add_option("--system", options->system, "what the model is told first");
  command->add_flag("--no-history", options->no_history, "do not read or write ~/.lowp_history");
  command->footer(
      std::string("A model with a chat template answers; one without continues what you type.\n"
                  "Sampling parameters that are not given come from generation_config.json, as for `lowp generate`. "
                  "The n-th answer\n"
                  "draws from seed + n. Answers go to standard output, everything else to standard error.\n\n") +
      kHelp +
      "\nExamples:\n  lowp chat models/bookworm-8m\n  lowp chat bookworm-int4 --temperature 0.7 --max-tokens 64\n"
      "  printf 'Once upon a time\\n/stats\\n' | lowp chat models/bookworm-8m");
  command->callback([options] { Chat(*options).run(); });
}

}  // namespace lowp::cli
