// The text of one generated sequence, as its tokens come.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowp/engine/engine.h"
#include "lowp/text/stop_text.h"
#include "lowp/text/stream_decoder.h"
#include "lowp/text/tokenizer.h"

namespace lowp::server {

/// A token with its log-probability, if one was asked for and there is one: the first of a prompt has none.
struct ScoredToken {
  std::int32_t id = 0;     // -1: none
  std::size_t offset = 0;  // characters of the text before it
  std::optional<engine::Score> score = {};
};

/// What may be shown of a sequence since the last time.
struct Piece {
  std::string text;
  std::vector<ScoredToken> tokens;  // if log-probabilities were asked for
  std::string finish_reason;        // "stop", "length": this is the last piece
  bool empty() const { return text.empty() && tokens.empty() && finish_reason.empty(); }
};

class SequenceText {
 public:
  /// `prompt` gives the text its context: whether it begins with a space, say.
  SequenceText(const text::Tokenizer& tokenizer, std::span<const std::int32_t> prompt, std::vector<std::string> stop,
               bool skip_special, bool scores);

  /// Puts the prompt itself in front. `scores`: of its tokens from the second on, or none.
  void echo(std::span<const std::int32_t> prompt, std::vector<engine::Score> scores);
  void push(const engine::NewToken& token);
  /// In place of a token that there was no room for.
  void push_nothing() { held_.push_back({.id = -1, .offset = characters_}); }
  /// No more tokens. `finish_reason` unless a stop text came.
  void finish(std::string_view finish_reason);

  /// What may be shown now, and was not taken before.
  Piece take() { return std::exchange(piece_, {}); }
  /// A stop text came: later tokens do not count.
  bool stopped() const { return stop_.stopped(); }
  std::int64_t tokens() const { return tokens_; }

 private:
  void pass(const std::string& text);

  const text::Tokenizer& tokenizer_;
  std::optional<text::StreamDecoder> decoder_;
  text::StopText stop_;
  const bool skip_special_, scores_;
  std::int64_t tokens_ = 0;
  std::size_t characters_ = 0;  // decoded so far
  std::vector<ScoredToken> held_;
  Piece piece_;
};

/// A token as text by itself: what is not UTF-8 is spelled "bytes:\xe4".
std::string token_text(const text::Tokenizer& tokenizer, std::int32_t id);

}  // namespace lowp::server
