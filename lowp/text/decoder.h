// Text from tokens, as the "decoder" of a tokenizer.json has it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

/// Either byte-level, or SentencePiece's way: "▁" is a space, "<0xE4>" a byte, and the space that was put before the
/// text is taken away.
class Decoder {
 public:
  /// Throws Error(unsupported) naming a component that is neither.
  static Decoder parse(const Json& decoder, const std::string& where);

  bool is_byte_level() const { return byte_level_; }
  /// What a token alone decodes to, unless it stands first.
  std::string bytes(std::string_view token) const;

  /// A text in the making.
  struct State {
    std::string pending;      // the beginning of a character, or bytes by fallback
    bool has_tokens = false;  // one was seen
    std::size_t stripped = 0;
    bool strips = true;  // still at the start of the text
  };
  /// Appends what is certain with this token to `out`.
  void push(const Vocabulary& vocabulary, std::int32_t id, State& state, std::string& out) const;
  /// Appends what was held back.
  void finish(State& state, std::string& out) const;

 private:
  void add_component(const std::string& type, class Fields& fields);
  void flush_bytes(State& state, std::string& out) const;
  void emit(std::string_view text, State& state, std::string& out) const;

  bool byte_level_ = false, byte_fallback_ = false, fused_ = false;
  std::vector<std::pair<std::string, std::string>> replacements_;
  std::string mark_;             // Metaspace's; the first token loses it
  std::string strip_;            // one character, of which the text loses at most
  std::size_t strip_count_ = 0;  // so many at its start
};

}  // namespace lowp::text
