// Tokens and their ids, as the file spells them and as bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lowp::text {

/// Hashing that takes string views: no copy for a look-up.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// A byte-level vocabulary spells each byte of a token as one character: printable ASCII and most of Latin-1 as itself,
/// the rest from U+0100 on ("Ġ" is a space). Appends the character of a byte, in UTF-8.
void append_byte_character(std::string& out, unsigned char byte);

/// The bytes that a token spells; nullopt if a character of it stands for no byte.
std::optional<std::string> spelled_bytes(std::string_view token);

/// The byte that a token such as "<0xE4>" stands for where bytes that are no token are spelled so; -1 for another
/// token.
int fallback_byte(std::string_view token);

/// The two-way map between tokens and ids. Ids may leave gaps.
class Vocabulary {
 public:
  /// `tokens` is about how many there will be; ids far beyond that are refused, since they cost memory.
  Vocabulary(std::size_t tokens, std::string where);

  /// Adds a token whose bytes are spelled. Throws Error(bad_input) if the id or the token is there already with another
  /// partner, or the id is beyond all reason.
  void add(std::string_view token, std::int32_t id);
  /// The same for a token that stands for its own text.
  void add_verbatim(std::string_view token, std::int32_t id);
  /// Gives every token the bytes that `spell` makes of it.
  void respell(const std::function<std::string(std::string_view token)>& spell);

  /// The largest id + 1.
  std::size_t size() const { return tokens_.size(); }
  std::optional<std::int32_t> find(std::string_view token) const;
  /// nullptr if no token has the id.
  const std::string* token(std::int32_t id) const;
  /// What the token decodes to; not UTF-8 by itself.
  const std::string& bytes(std::int32_t id) const { return bytes_[static_cast<std::size_t>(id)]; }

 private:
  void add(std::string_view token, std::int32_t id, std::string bytes);

  std::string where_;
  std::int64_t id_limit_;
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // by id, keys of ids_
  std::vector<std::string> bytes_;          // by id
};

/// Spells what is no token by the tokens of its bytes.
class ByteFallback {
 public:
  ByteFallback() = default;  // spells nothing
  explicit ByteFallback(const Vocabulary& vocabulary);
  /// Appends the tokens of the bytes; false, and nothing appended, if the vocabulary lacks one.
  bool append(std::string_view bytes, std::vector<std::int32_t>& out) const;

 private:
  std::vector<std::int32_t> ids_;  // by byte, -1: no token
};

}  // namespace lowp::text
