// A template's source as tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lowp::text::jinja {

enum class TokenKind : std::uint8_t {
  text,
  block_begin,
  block_end,
  print_begin,
  print_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;  // of a name, operator, number; of a string or of text between tags: what it stands for
  int line = 1;
};

/// With Jinja's options trim_blocks and lstrip_blocks, as transformers has them, and "{%-", "-%}", "{%+". Throws
/// Error(bad_input) naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace lowp::text::jinja
