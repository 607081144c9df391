#include "lowp/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/base/utf8.h"

namespace lowp::text {
namespace {

constexpr std::int64_t kGaps = 1 << 20;  // ids that a file may leave out

constexpr bool spells_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr int kCharacters = 0x144;  // the characters that stand for bytes are below

struct Alphabet {
  std::array<char16_t, 256> character{};
  std::array<std::int16_t, kCharacters> byte{};  // -1: none

  constexpr Alphabet() {
    byte.fill(-1);
    char16_t other = 0x100;
    for (int b = 0; b < 256; ++b) {
      character[b] = spells_itself(b) ? static_cast<char16_t>(b) : other++;
      byte[character[b]] = static_cast<std::int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;
static_assert(kAlphabet.character[' '] == u'\u0120' && kAlphabet.character['\n'] == u'\u010A');
static_assert(kAlphabet.character[0xAD] == kCharacters - 1);

}  // namespace

void append_byte_character(std::string& out, unsigned char byte) { append_utf8(out, kAlphabet.character[byte]); }

std::optional<std::string> spelled_bytes(std::string_view token) {
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Step step = next_utf8(token, at);
    const int byte = step.state == Utf8::valid && step.code < kCharacters ? kAlphabet.byte[step.code] : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += step.length;
  }
  return bytes;
}

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'A' || c > 'F')) return -1;
    value = 16 * value + (digit ? c - '0' : c - 'A' + 10);
  }
  return value;
}

Vocabulary::Vocabulary(std::size_t tokens, std::string where)
    : where_(std::move(where)), id_limit_(static_cast<std::int64_t>(tokens) + kGaps) {
  ids_.reserve(tokens);
}

void Vocabulary::add(std::string_view token, std::int32_t id) {
  auto bytes = spelled_bytes(token);
  add(token, id, bytes ? *std::move(bytes) : std::string(token));
}

void Vocabulary::add_verbatim(std::string_view token, std::int32_t id) { add(token, id, std::string(token)); }

void Vocabulary::add(std::string_view token, std::int32_t id, std::string bytes) {
  if (id >= id_limit_)
    fail(ErrorCode::bad_input, "{}: token {} has the id {}, far beyond the number of tokens", where_, quote(token), id);
  const auto [at, is_new] = ids_.try_emplace(std::string(token), id);
  if (!is_new && at->second != id)
    fail(ErrorCode::bad_input, "{}: token {} has two ids, {} and {}", where_, quote(token), at->second, id);
  const auto index = static_cast<std::size_t>(id);
  if (index >= tokens_.size()) {
    tokens_.resize(index + 1);
    bytes_.resize(index + 1);
  }
  if (tokens_[index] && tokens_[index] != &at->first)
    fail(ErrorCode::bad_input, "{}: id {} belongs to two tokens, {} and {}", where_, id, quote(*tokens_[index]),
         quote(token));
  tokens_[index] = &at->first;
  bytes_[index] = std::move(bytes);
}

void Vocabulary::respell(const std::function<std::string(std::string_view)>& spell) {
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    if (tokens_[i]) bytes_[i] = spell(*tokens_[i]);
}

std::optional<std::int32_t> Vocabulary::find(std::string_view token) const {
  const auto at = ids_.find(token);
  return at == ids_.end() ? std::nullopt : std::optional(at->second);
}

const std::string* Vocabulary::token(std::int32_t id) const {
  return id >= 0 && static_cast<std::size_t>(id) < tokens_.size() ? tokens_[static_cast<std::size_t>(id)] : nullptr;
}

ByteFallback::ByteFallback(const Vocabulary& vocabulary) : ids_(256, -1) {
  for (int byte = 0; byte < 256; ++byte)
    ids_[static_cast<std::size_t>(byte)] = vocabulary.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
}

bool ByteFallback::append(std::string_view bytes, std::vector<std::int32_t>& out) const {
  const auto id = [&](char c) { return ids_[static_cast<unsigned char>(c)]; };
  if (ids_.empty() || std::any_of(bytes.begin(), bytes.end(), [&](char c) { return id(c) < 0; })) return false;
  for (const char c : bytes) out.push_back(id(c));
  return true;
}

}  // namespace lowp::text
