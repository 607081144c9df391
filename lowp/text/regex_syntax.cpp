#include "lowp/text/regex_syntax.h"

#include <algorithm>
#include <cctype>

#include "lowp/base/error.h"
#include "lowp/base/json.h"

namespace lowp::text {
namespace {

// White_Space, and all the rest. PCRE2's \s has U+180E as well.
constexpr std::string_view kSpace =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff}\x{e000}-\x{10ffff})";
// PCRE2's \w has no marks and no connectors but '_'. Outside of brackets Oniguruma has some digits of Latin-1 as well.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kWordDigits = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (!done()) {
      switch (peek()) {
        case '\\':
          escape();
          break;
        case '[':
          bracket();
          break;
        case '(':
          group();
          break;
        case '{':
        case '?':
        case '*':
        case '+':
          quantifier();
          break;
        default:
          copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  bool done() const { return at_ == pattern_.size(); }
  // The character `ahead` of here; NUL beyond the end, which no test below asks for.
  char peek(std::size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  bool at(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ = std::min(at_ + count, pattern_.size());
  }
  void replace(std::size_t count, std::string_view by) {
    at_ += count;
    out_ += by;
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::unsupported, "{}: {} at {} of the regular expression {}", where_, what, at_, quote(pattern_));
  }

  void group() {
    if (at("(*")) refuse("'(*'");
    if (peek(1) != '?') return copy(1);
    for (const std::string_view kind : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"})
      if (at(kind)) return copy(kind.size());
    if (at_ == 0 && at("(?i)")) return copy(4);
    refuse("this kind of group");
  }

  // ? * + and {n,m}, then ? (lazy) or + (possessive).
  void quantifier() {
    const bool braces = peek() == '{';
    std::size_t length = 1;
    if (braces) {
      if (peek(1) == ',') refuse("a repetition without a lower bound");
      const std::size_t end = pattern_.substr(at_).find('}');
      const auto inside = end == std::string_view::npos ? std::string_view() : pattern_.substr(at_ + 1, end - 1);
      const auto comma = std::min(inside.find(','), inside.size());
      const auto digits = [](std::string_view text) { return std::all_of(text.begin(), text.end(), is_digit); };
      if (inside.empty() || !digits(inside.substr(0, comma)) ||
          !digits(inside.substr(std::min(comma + 1, inside.size()))))
        return copy(1);  // an ordinary character to both
      length = end + 1;
    }
    copy(length);
    // After braces Oniguruma takes a + for a second repetition, and a ? too where there is no comma.
    if (braces && (peek() == '+' || peek() == '?')) refuse("a lazy, possessive or doubled repetition in braces");
    if (peek() == '?' || peek() == '+') copy(1);
    if (peek() == '?' || peek() == '*' || peek() == '+') refuse("a doubled repetition");
  }

  void bracket() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') refuse("an empty class");
    bool after_set = false;  // \s and the like, which can not be an end of a range
    for (bool first = true; peek() != ']'; first = false) {
      if (done()) refuse("a class without an end");
      if (peek() == '[') refuse("a class within a class");
      if (at("&&")) refuse("an intersection");
      if (peek() == '-' && !first && peek(1) != ']' && (after_set || is_set(1))) refuse("a range from or to a set");
      after_set = is_set(0);
      peek() == '\\' ? escape_in_class() : copy(1);
    }
    copy(1);
  }

  bool is_set(std::size_t ahead) const {
    return peek(ahead) == '\\' && std::string_view("sSwWdDpP").find(peek(ahead + 1)) != std::string_view::npos;
  }

  void escape() {
    switch (peek(1)) {
      case 's':
        return replace(2, fmt::format("[{}]", kSpace));
      case 'S':
        return replace(2, fmt::format("[^{}]", kSpace));
      case 'w':
        return replace(2, fmt::format("[{}{}]", kWord, kWordDigits));
      case 'W':
        return replace(2, fmt::format("[^{}{}]", kWord, kWordDigits));
      case 'A':
      case 'z':
      case 'Z':
        return copy(2);
      default:
        return common_escape();
    }
  }

  void escape_in_class() {
    switch (peek(1)) {
      case 's':
        return replace(2, kSpace);
      case 'S':
        return replace(2, kNotSpace);
      case 'w':
        return replace(2, kWord);
      default:
        return common_escape();
    }
  }

  void common_escape() {
    const char c = peek(1);
    if (c == 'p' || c == 'P') return property();
    if (c == 'x' || c == 'u') return code_point();
    if (c == 'v') return replace(2, "\\x{b}");
    if (std::string_view("dDtnrfae").find(c) != std::string_view::npos) return copy(2);
    if (c == '\0' || std::isalnum(static_cast<unsigned char>(c))) refuse(fmt::format("the escape '\\{}'", c ? c : ' '));
    copy(2);  // an escaped punctuation mark, or the first byte of a character that needs no escape
  }

  // \p{L}, \p{^L}, \p{Han}. A name that is not a general category is taken for a script; PCRE2 refuses it if it is
  // none.
  void property() {
    const std::size_t end = pattern_.find('}', at_);
    if (peek(2) != '{' || end == std::string_view::npos) refuse("a property without braces");
    std::string name(pattern_.substr(at_ + 3, end - at_ - 3));
    const bool inverse = name.starts_with('^');
    if (inverse) name.erase(0, 1);
    const bool is_name = std::all_of(name.begin(), name.end(),
                                     [](char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; });
    if (name.empty() || !is_name) refuse("this property");
    out_ += inverse == (peek(1) == 'p') ? "\\P{" : "\\p{";
    out_ += (name.size() <= 2 ? name : "sc:" + name) + "}";
    at_ = end + 1;
  }

  // \x41, \x{4e00}, \u4e00
  void code_point() {
    const bool braces = peek(2) == '{';
    const std::size_t begin = at_ + 2 + braces, limit = braces ? 6 : peek(1) == 'u' ? 4 : 2;
    std::size_t end = begin;
    while (end < pattern_.size() && end - begin < limit && std::isxdigit(static_cast<unsigned char>(pattern_[end])))
      ++end;
    const std::string digits(pattern_.substr(begin, end - begin));
    const bool whole =
        braces ? peek(1) == 'x' && !digits.empty() && pattern_.substr(end).starts_with('}') : digits.size() == limit;
    // Two digits are a byte, which above 7F is not a character.
    if (!whole || (limit == 2 && digits[0] >= '8')) refuse("this character code");
    out_ += "\\x{" + digits + "}";
    at_ = end + braces;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

std::string_view white_space_class() { return kSpace; }

std::string quote_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::ispunct(static_cast<unsigned char>(c))) out += '\\';
    if (c == '\0')
      out += "\\x{0}";
    else
      out += c;
  }
  return out;
}

}  // namespace lowp::text
