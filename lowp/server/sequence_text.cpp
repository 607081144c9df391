#include "lowp/server/sequence_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "lowp/base/utf8.h"

namespace lowp::server {
namespace {

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string token_text(const text::Tokenizer& tokenizer, std::int32_t id) {
  if (id < 0 || !tokenizer.token(id)) return "";
  const std::string& bytes = tokenizer.bytes(id);
  if (find_invalid_utf8(bytes) == std::string::npos) return bytes;
  std::string spelled = "bytes:";
  for (const char c : bytes) spelled += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return spelled;
}

SequenceText::SequenceText(const text::Tokenizer& tokenizer, std::span<const std::int32_t> prompt,
                           std::vector<std::string> stop, bool skip_special, bool scores)
    : tokenizer_(tokenizer),
      decoder_(std::in_place, tokenizer, skip_special),
      stop_(std::move(stop)),
      skip_special_(skip_special),
      scores_(scores) {
  constexpr std::size_t kContext = 16;  // tokens; a character has no more
  for (const std::int32_t id : prompt.last(std::min(prompt.size(), kContext)))
    if (tokenizer.token(id)) decoder_->push(id);
}

void SequenceText::echo(std::span<const std::int32_t> prompt, std::vector<engine::Score> scores) {
  text::StreamDecoder decoder(tokenizer_, skip_special_);
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (scores_) {
      ScoredToken token{.id = prompt[i], .offset = characters_};
      if (i > 0 && i <= scores.size()) token.score = std::move(scores[i - 1]);
      piece_.tokens.push_back(std::move(token));
    }
    if (!tokenizer_.token(prompt[i])) continue;
    const std::string text = decoder.push(prompt[i]);
    characters_ += characters(text);
    piece_.text += text;
  }
  decoder_.emplace(decoder);  // goes on in the middle of a character
}

void SequenceText::push(const engine::NewToken& token) {
  if (stopped()) return;
  ++tokens_;
  if (scores_) held_.push_back({.id = token.token, .offset = characters_, .score = token.score});
  if (tokenizer_.token(token.token)) pass(decoder_->push(token.token));
}

void SequenceText::finish(std::string_view finish_reason) {
  pass(decoder_->flush());
  piece_.text += stop_.flush();
  std::move(held_.begin(), held_.end(), std::back_inserter(piece_.tokens));
  held_.clear();
  piece_.finish_reason = stopped() ? "stop" : finish_reason;
}

void SequenceText::pass(const std::string& text) {
  characters_ += characters(text);
  const std::string shown = stop_.push(text);
  if (shown.empty()) return;
  piece_.text += shown;
  std::move(held_.begin(), held_.end(), std::back_inserter(piece_.tokens));
  held_.clear();
}

}  // namespace lowp::server
