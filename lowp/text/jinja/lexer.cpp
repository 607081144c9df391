#include "lowp/text/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/base/utf8.h"

namespace lowp::text::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {
    // Jinja leaves out one newline at the end.
    if (source_.ends_with("\r\n"))
      source_.remove_suffix(2);
    else if (source_.ends_with('\n'))
      source_.remove_suffix(1);
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void wrong(const std::string& what) const {
    lowp::fail(ErrorCode::bad_input, "template line {}: {}", line_, what);
  }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  bool next_is(std::string_view what) const { return source_.substr(at_).starts_with(what); }
  void advance(std::size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }

  // Text up to the next tag, then the tag.
  void text() {
    std::size_t open = at_;
    while (open < source_.size() &&
           !(source_[open] == '{' && open + 1 < source_.size() &&
             (source_[open + 1] == '{' || source_[open + 1] == '%' || source_[open + 1] == '#')))
      ++open;
    std::string_view before = source_.substr(at_, open - at_);
    const char kind = open < source_.size() ? source_[open + 1] : ' ';
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    if (sign == '-' && kind != ' ') {
      while (!before.empty() && is_space(before.back())) before.remove_suffix(1);
    } else if (kind == '%' || kind == '#') {
      const std::size_t newline = before.rfind('\n');
      const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      const std::string_view rest = before.substr(start);
      if (sign != '+' && (start > 0 || line_starts_) && std::all_of(rest.begin(), rest.end(), is_space))
        before = before.substr(0, start);
    }
    if (!before.empty()) add(TokenKind::text, std::string(before));
    advance(open - at_);
    if (at_ >= source_.size()) return;
    advance(2);
    if ((sign == '-' || sign == '+') && at_ < source_.size()) advance(1);
    if (kind == '#') return comment();
    if (kind == '%' && raw_block()) return;
    tag(kind == '%');
  }

  void comment() {
    const std::size_t close = source_.find("#}", at_);
    if (close == std::string_view::npos) wrong("a comment without its end");
    const bool strips = close > at_ && source_[close - 1] == '-';
    advance(close + 2 - at_);
    after_tag(strips, true);
  }

  bool raw_block() {
    std::size_t i = at_;
    const auto skip = [&] {
      while (i < source_.size() && is_space(source_[i])) ++i;
    };
    skip();
    if (!source_.substr(i).starts_with("raw")) return false;
    i += 3;
    skip();
    if (!source_.substr(i).starts_with("%}") && !source_.substr(i).starts_with("-%}")) return false;
    bool strips = source_[i] == '-';
    advance(i + (strips ? 3 : 2) - at_);
    after_tag(strips, false);
    for (std::size_t open = source_.find("{%", at_); open != std::string_view::npos;
         open = source_.find("{%", open + 1)) {
      i = open + 2;
      const bool strips_before = i < source_.size() && source_[i] == '-';
      if (strips_before) ++i;
      skip();
      if (!source_.substr(i).starts_with("endraw")) continue;
      i += 6;
      skip();
      strips = i < source_.size() && source_[i] == '-';
      if (strips) ++i;
      if (!source_.substr(i).starts_with("%}")) continue;
      std::string_view inside = source_.substr(at_, open - at_);
      while (strips_before && !inside.empty() && is_space(inside.back())) inside.remove_suffix(1);
      if (!inside.empty()) add(TokenKind::text, std::string(inside));
      advance(i + 2 - at_);
      after_tag(strips, true);
      return true;
    }
    wrong("raw without endraw");
  }

  void after_tag(bool strips, bool trims) {
    const std::size_t begin = at_;
    if (strips) {
      while (at_ < source_.size() && is_space(source_[at_])) advance(1);
    } else if (trims) {
      if (next_is("\r\n"))
        advance(2);
      else if (next_is("\n"))
        advance(1);
    }
    line_starts_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void tag(bool block) {
    add(block ? TokenKind::block_begin : TokenKind::print_begin, "");
    const std::string_view close = block ? "%}" : "}}";
    int open = 0;  // brackets: "}}" may close two dicts
    for (;;) {
      while (at_ < source_.size() && is_space(source_[at_])) advance(1);
      if (at_ >= source_.size()) wrong("a tag without its end");
      if (open == 0) {
        const char sign = source_[at_];
        const bool signed_close = (sign == '-' || (sign == '+' && block)) && source_.substr(at_ + 1).starts_with(close);
        if (signed_close || next_is(close)) {
          add(block ? TokenKind::block_end : TokenKind::print_end, "");
          advance(close.size() + (signed_close ? 1 : 0));
          return after_tag(signed_close && sign == '-', block && !(signed_close && sign == '+'));
        }
      }
      const char c = source_[at_];
      if (c == '(' || c == '[' || c == '{') ++open;
      if ((c == ')' || c == ']' || c == '}') && --open < 0) wrong("a bracket closes that was not open");
      token(c);
    }
  }

  void token(char c) {
    if (is_letter(c)) {
      std::size_t end = at_;
      while (end < source_.size() && (is_letter(source_[end]) || is_digit(source_[end]))) ++end;
      add(TokenKind::name, std::string(source_.substr(at_, end - at_)));
      return advance(end - at_);
    }
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    for (const std::string_view op : {"//", "**", "==", "!=", "<=", ">="})
      if (next_is(op)) {
        add(TokenKind::op, std::string(op));
        return advance(2);
      }
    if (std::string_view("+-*/%~<>=()[]{}.,:|").find(c) == std::string_view::npos)
      wrong("unexpected " + quote(source_.substr(at_, 1)));
    add(TokenKind::op, std::string(1, c));
    advance(1);
  }

  void number() {
    std::size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    bool real = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      real = true;
      ++end;
      digits();
    }
    if (end + 1 < source_.size() && (source_[end] == 'e' || source_[end] == 'E') &&
        (is_digit(source_[end + 1]) || ((source_[end + 1] == '-' || source_[end + 1] == '+') &&
                                        end + 2 < source_.size() && is_digit(source_[end + 2])))) {
      real = true;
      end += 2;
      digits();
    }
    std::string text(source_.substr(at_, end - at_));
    std::erase(text, '_');
    add(real ? TokenKind::real : TokenKind::integer, text);
    advance(end - at_);
  }

  void string(char quote_mark) {
    std::string text;
    std::size_t i = at_ + 1;
    const auto code = [&](std::size_t digits) {
      char32_t value = 0;
      for (std::size_t n = 0; n < digits; ++n, ++i) {
        const char c = i < source_.size() ? source_[i] : ' ';
        const int digit = is_digit(c)            ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) wrong("a bad escape in a string");
        value = value * 16 + static_cast<char32_t>(digit);
      }
      if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) wrong("a bad escape in a string");
      append_utf8(text, value);
    };
    for (;;) {
      if (i >= source_.size()) wrong("a string without its end");
      const char c = source_[i++];
      if (c == quote_mark) break;
      if (c != '\\' || i >= source_.size()) {
        text += c;
        continue;
      }
      const char escaped = source_[i++];
      switch (escaped) {
        case 'n':
          text += '\n';
          break;
        case 't':
          text += '\t';
          break;
        case 'r':
          text += '\r';
          break;
        case 'b':
          text += '\b';
          break;
        case 'f':
          text += '\f';
          break;
        case 'v':
          text += '\v';
          break;
        case 'a':
          text += '\a';
          break;
        case '0':
          text += '\0';
          break;
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          text += escaped;
          break;
        case 'x':
          code(2);
          break;
        case 'u':
          code(4);
          break;
        case 'U':
          code(8);
          break;
        default:
          text += {'\\', escaped};
      }
    }
    add(TokenKind::string, std::move(text));
    advance(i - at_);
  }

  std::string_view source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace lowp::text::jinja
