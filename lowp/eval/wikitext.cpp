#include "lowp/eval/wikitext.h"

#include <algorithm>
#include <array>

namespace lowp::eval {
namespace {

// Length in bytes of the white space character at the start of text (Python's \s for str), 0 if there is none.
std::size_t space_at(std::string_view text) {
  if (text.empty()) return 0;
  const auto c = static_cast<unsigned char>(text[0]);
  if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20)) return 1;
  static constexpr std::array<std::string_view, 19> kWide = {
      "\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  if (c < 0xC2) return 0;
  for (const std::string_view space : kWide)
    if (text.starts_with(space)) return space.size();
  return 0;
}

std::string_view strip(std::string_view text) {
  while (const std::size_t n = space_at(text)) text.remove_prefix(n);
  while (!text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (space_at(text.substr(start)) != text.size() - start) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  std::string out;
  std::size_t from = 0;
  for (std::size_t at; (at = text.find(what, from)) != std::string::npos; from = at + what.size()) {
    out.append(text, from, at - from);
    out += with;
  }
  out.append(text, from);
  text = std::move(out);
}

// White space directly inside a pair goes: "( a )" becomes "(a)". Pairs do not nest.
void tighten(std::string& text, char open, char close) {
  std::string out;
  std::size_t from = 0;
  for (std::size_t at; (at = text.find(open, from)) != std::string::npos;) {
    const std::size_t end = text.find(close, at + 1);
    if (end == std::string::npos) break;
    out.append(text, from, at + 1 - from);
    out += strip(std::string_view(text).substr(at + 1, end - at - 1));
    out += close;
    from = end + 1;
  }
  out.append(text, from);
  text = std::move(out);
}

}  // namespace

std::vector<std::string> wikitext_documents(std::string_view text) {
  std::vector<std::string> documents;
  const auto add = [&](std::string_view page) {
    if (!strip(page).empty()) documents.emplace_back(page);
  };
  std::size_t page = 0;  // where it begins
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line(strip(text.substr(at, end - at)));
    replace_all(line, "= = =", "===");
    replace_all(line, "= =", "==");
    if (line.starts_with("= ") && line.ends_with(" =")) {
      if (at > 0) add(text.substr(page, at - 1 - page));  // pages are lines joined: the last has no line feed
      page = at;
    }
    at = end + 1;
  }
  add(text.substr(page));
  return documents;
}

std::string wikitext_detokenize(std::string text) {
  replace_all(text, "s '", "s'");
  for (char digit = '0'; digit <= '9'; ++digit)
    replace_all(text, std::string("/' ") + digit + "/", "/'[0-9]/");  // as the task spells it
  for (const auto& [what, with] : {std::pair{" @-@ ", "-"}, std::pair{" @,@ ", ","}, std::pair{" @.@ ", "."},
                                   std::pair{" : ", ": "}, std::pair{" ; ", "; "}, std::pair{" . ", ". "},
                                   std::pair{" ! ", "! "}, std::pair{" ? ", "? "}, std::pair{" , ", ", "}})
    replace_all(text, what, with);
  tighten(text, '(', ')');
  tighten(text, '[', ']');
  tighten(text, '{', '}');
  tighten(text, '"', '"');
  tighten(text, '\'', '\'');
  for (const auto& [what, with] : {std::pair{"= = = =", "===="}, std::pair{"= = =", "==="}, std::pair{"= =", "=="},
                                   std::pair{" \u00B0 ", "\u00B0"}, std::pair{" \n", "\n"}, std::pair{"\n ", "\n"},
                                   std::pair{" N ", " 1 "}, std::pair{" 's", "'s"}})
    replace_all(text, what, with);
  return text;
}

std::int64_t word_count(std::string_view text) {
  std::int64_t pieces = 1;
  while (!text.empty()) {
    if (const std::size_t n = space_at(text)) {
      ++pieces;
      text.remove_prefix(n);
      while (const std::size_t more = space_at(text)) text.remove_prefix(more);
    } else {
      text.remove_prefix(1);
    }
  }
  return pieces;
}

}  // namespace lowp::eval
