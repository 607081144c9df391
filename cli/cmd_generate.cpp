#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "cli/generation.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp::cli {
namespace {

constexpr std::int64_t kMaxTokens = 128;

struct GenerateOptions {
  GenerationOptions generation;
  std::string prompt, file;
  bool json = false;
};

std::string read_standard_input() {
  std::string text;
  char part[4096];
  for (std::size_t n; (n = std::fread(part, 1, sizeof part, stdin)) > 0;) text.append(part, n);
  return text;
}

std::string prompt(const GenerateOptions& options) {
  if (options.file.empty()) {
    check_text(options.prompt, "-p");
    return options.prompt;
  }
  const std::string text = options.file == "-" ? read_standard_input() : read_text(options.file);
  check_text(text, options.file == "-" ? "standard input" : options.file);
  return text;
}

void write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail(ErrorCode::io, "cannot write to standard output");
}

void run(const GenerateOptions& options) {
  const std::string text = prompt(options);
  Generator generator(options.generation);
  std::string all;
  bool line_open = false;
  const auto show = [&](std::string_view part) {
    line_open = part.back() != '\n';
    if (options.json)
      all += part;
    else
      write(part);
  };
  const Generated result = generator.run(generator.tokenizer().encode(text, true), generator.max_tokens(kMaxTokens),
                                         options.generation.seed, show);
  if (options.json) {
    const double seconds = result.prompt_seconds + result.answer_seconds,
                 count = static_cast<double>(result.tokens.size());
    fmt::print("{}\n", Json({{"prompt_tokens", result.prompt_tokens},
                             {"tokens", result.tokens.size()},
                             {"text", all},
                             {"finish_reason", result.finish_reason},
                             {"seconds", seconds},
                             {"tokens_per_second", seconds > 0 ? count / seconds : 0}})
                           .dump());
  } else if (line_open && ::isatty(STDOUT_FILENO)) {
    write("\n");
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text");
  add_generation_options(*command, options->generation);
  auto* source = command->add_option_group("prompt");
  source->add_option("-p,--prompt", options->prompt, "the text to continue");
  source->add_option("-f,--file", options->file, "a file with the text to continue; - is standard input");
  source->require_option(1);
  command
      ->add_option("-n,--max-tokens", options->generation.max_tokens,
                   "most tokens to generate; fewer where the context ends; if not given, max_new_tokens of "
                   "generation_config.json, or 128")
      ->check(count());
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Prints the continuation as it comes, without the prompt. Sampling parameters that are not given come from the "
      "model's\n"
      "generation_config.json (temperature, top_k, top_p, min_p, repetition_penalty; do_sample: false is temperature "
      "0); what\n"
      "it does not name does not apply: temperature 1, all tokens. Generation ends at an end-of-sequence token of "
      "config.json\n"
      "or generation_config.json, at a stop text (which is not printed), at -n tokens, or with Ctrl-C.\n"
      "--json: prompt_tokens, tokens, text, finish_reason (stop, length, cancelled), seconds, tokens_per_second "
      "(all "
      "tokens\n"
      "over all seconds, without loading).\n\nExamples:\n"
      "  lowp generate models/bookworm-8m -p \"It was a dark and stormy\" -n 64\n"
      "  lowp generate models/bookworm-8m -f story.txt --temperature 0 --json\n"
      "  lowp generate bookworm-int4 -p \"Chapter 1\" --temperature 0.8 --top-p 0.95 --seed 3 --stop \"Chapter 2\"");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
