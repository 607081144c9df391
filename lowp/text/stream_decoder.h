// Text from tokens as they come.
#pragma once

#include <cstdint>
#include <string>

#include "lowp/text/decoder.h"
#include "lowp/text/tokenizer.h"

namespace lowp::text {

/// Decodes tokens one by one. What push() and flush() return is UTF-8 by itself, and put together what
/// Tokenizer::decode gives for all the tokens. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  /// The text that is certain with this token; may be empty. Throws Error(usage) for an id without a token.
  std::string push(std::int32_t id);
  /// At the end: what was held back, U+FFFD for bytes of an unfinished character.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Decoder::State state_;
};

}  // namespace lowp::text
