#include "lowp/base/utf8.h"

#include <cstring>

namespace lowp {
namespace {

// The length of ASCII at text[at], in steps of eight bytes.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  constexpr std::uint64_t kHighBits = 0x8080808080808080u;
  std::size_t end = at;
  for (std::uint64_t word; end + sizeof word <= text.size(); end += sizeof word) {
    std::memcpy(&word, text.data() + end, sizeof word);
    if (word & kHighBits) break;
  }
  return end - at;
}

}  // namespace

Utf8Step next_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8::valid, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8::invalid, 1, 0};
  const std::uint8_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range keeps out overlong forms, surrogates and codes above U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  char32_t code = lead & (0x7Fu >> length);
  for (std::uint8_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {Utf8::incomplete, i, 0};
    if (byte(i) < low || byte(i) > high) return {Utf8::invalid, i, 0};
    code = code << 6 | (byte(i) & 0x3Fu);
    low = 0x80, high = 0xBF;
  }
  return {Utf8::valid, length, code};
}

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size();) {
    const Utf8Step step = next_utf8(text, at);
    if (step.state != Utf8::valid) return at;
    at += step.length;
    at += skip_ascii(text, at);
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, char32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

std::size_t append_lossy(std::string& out, std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t ascii = skip_ascii(bytes, at);
    out.append(bytes, at, ascii);
    at += ascii;
    if (at == bytes.size()) break;
    const Utf8Step step = next_utf8(bytes, at);
    if (step.state == Utf8::incomplete) return step.length;
    out += step.state == Utf8::valid ? bytes.substr(at, step.length) : kReplacement;
    at += step.length;
  }
  return 0;
}

bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

}  // namespace lowp
