// UTF-8: one step of a decoder, and what the tokenizers need of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lowp {

enum class Utf8 : std::uint8_t {
  valid,
  invalid,     // no sequence starts so; length is what one U+FFFD stands for (Unicode's "maximal subpart")
  incomplete,  // the text ends within a sequence that more bytes could complete
};

struct Utf8Step {
  Utf8 state;
  std::uint8_t length;  // bytes, at least 1
  char32_t code;        // if valid
};

/// The step at text[at], at < text.size().
Utf8Step next_utf8(std::string_view text, std::size_t at);

/// The offset of the first byte that is not part of UTF-8; npos if all is.
std::size_t find_invalid_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code);

/// Appends bytes as UTF-8 with U+FFFD in place of what is not. Returns the count of bytes at the end left out because
/// more bytes could complete them: 0 to 3.
std::size_t append_lossy(std::string& out, std::string_view bytes);

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Unicode's White_Space.
bool is_white_space(char32_t code);

}  // namespace lowp
