// What `generate` and `chat` share: a model that continues text, and how a user stops it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/model_options.h"
#include "lowp/engine/engine.h"
#include "lowp/engine/generation_config.h"
#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::cli {

struct GenerationOptions {
  std::string model;
  ModelOptions load;
  std::optional<double> temperature, top_p, min_p;
  std::optional<std::int64_t> top_k;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::optional<std::int64_t> max_tokens;  // of an answer
};

/// The model and the options above, each with its help.
void add_generation_options(CLI::App& command, GenerationOptions& options);

/// Accepts digits only: a number from 0 on.
CLI::Validator count();

/// While one lives, Ctrl-C is noted instead of ending the program.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  static bool asked();
};

struct Generated {
  std::int64_t prompt_tokens = 0;
  std::vector<std::int32_t> tokens;
  std::string finish_reason;                      // stop, length, cancelled
  double prompt_seconds = 0, answer_seconds = 0;  // until the first token, from there on
};

class Generator {
 public:
  /// Loads model and tokenizer. Throws Error: usage for sampling parameters that make no sense.
  explicit Generator(const GenerationOptions& options);

  models::Model& model() { return model_; }
  const text::Tokenizer& tokenizer() const { return tokenizer_; }
  std::int64_t context() const { return engine_.context(); }
  /// Most tokens of an answer: what was asked for, or what generation_config.json says, or `otherwise`.
  std::int64_t max_tokens(std::int64_t otherwise) const;

  /// Continues a prompt; `show` gets the text as it comes, whole characters at a time. Ctrl-C ends it (see Interrupt).
  /// Throws Error for a prompt that is too long and for a model whose logits are not numbers.
  Generated run(std::vector<std::int32_t> prompt, std::int64_t max_tokens, std::uint64_t seed,
                const std::function<void(std::string_view)>& show);

 private:
  GenerationOptions options_;
  engine::GenerationConfig defaults_;
  text::Tokenizer tokenizer_;
  models::Model model_;
  engine::Sampling sampling_;
  engine::Engine engine_;
  std::uint64_t requests_ = 0;
};

/// Throws Error(usage) for text that is empty or not UTF-8; `what` names it.
void check_text(std::string_view text, std::string_view what);

}  // namespace lowp::cli
