#include "lowp/text/jinja/library.h"

#include <fmt/format.h>

#include <algorithm>

#include "lowp/base/utf8.h"

namespace lowp::text::jinja {
namespace {

std::string mapped(std::string_view text, char (*change)(char)) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), change);
  return out;
}
char lower_case(char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }
char upper_case(char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); }

}  // namespace

std::int64_t integer_or(const Value* value, std::int64_t fallback) {
  if (!value || value->is_none()) return fallback;
  if (!value->is_integer()) template_error(fmt::format("expected a whole number, found {}", value->type()));
  return value->integer();
}

bool flag_or(const Value* value, bool fallback) { return value ? value->truth() : fallback; }

const std::string& string_of(const Value* value, const char* what) {
  if (!value || !value->is_string())
    template_error(fmt::format("{}: expected a text, found {}", what, value ? value->type() : "nothing"));
  return value->string();
}

std::string lower(std::string_view text) { return mapped(text, lower_case); }
std::string upper(std::string_view text) { return mapped(text, upper_case); }

std::string capitalize(std::string_view text) {
  std::string out = lower(text);
  if (!out.empty()) out[0] = upper_case(out[0]);
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (const char c : text) {
    out += inside ? lower_case(c) : upper_case(c);
    inside = lower_case(c) != upper_case(c) || (static_cast<unsigned char>(c) & 0x80) != 0;
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t most,
                        std::size_t room) {
  std::string out;
  std::size_t at = 0;
  for (; most != 0; --most) {
    const std::size_t found = from.empty() ? at : text.find(from, at);
    if (found == std::string_view::npos || found > text.size()) break;
    if (out.size() > room) template_error("the template makes too much text");
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (!from.empty()) continue;
    if (at >= text.size()) return out;
    const std::size_t length = next_utf8(text, at).length;
    out += text.substr(at, length);
    at += length;
  }
  out += text.substr(std::min(at, text.size()));
  return out;
}

List pairs(const Dict& dict) {
  List items;
  for (const auto& [key, value] : dict.entries) items.emplace_back(List{Value(key), value});
  return items;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = next_utf8(text, at).length;
    out.push_back(text.substr(at, length));
    at += length;
  }
  return out;
}

std::string_view strip(std::string_view text, const std::string* set, bool left, bool right) {
  const auto strips = [&](std::string_view letter) {
    if (set) return set->find(letter) != std::string::npos;
    const char32_t code = next_utf8(letter, 0).code;
    return is_white_space(code) || (code >= 0x1C && code <= 0x1F);
  };
  while (left && !text.empty()) {
    const std::size_t length = next_utf8(text, 0).length;
    if (!strips(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!strips(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

}  // namespace lowp::text::jinja
