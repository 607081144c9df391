// Byte pair encoding: the bytes of a word, or its characters as SentencePiece has it, merged pair by pair in the order
// of training.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lowp/text/fields.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

/// What merging two adjacent tokens gives.
struct Merge {
  static constexpr std::uint32_t kNever = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t rank = kNever;  // merges of lower rank come first
  std::int32_t id = -1;
};

/// The merges by their pair of ids: a hash table with open addressing.
class MergeTable {
 public:
  explicit MergeTable(std::size_t count);
  void insert(std::int32_t left, std::int32_t right, Merge merge);
  Merge find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::size_t slot_of(std::uint64_t pair) const;
  std::vector<Slot> slots_;
};

/// What encoding keeps from word to word; one user at a time.
class BpeScratch {
 public:
  BpeScratch() : cache_(kCacheEntries) {}

 private:
  friend class Bpe;
  static constexpr std::size_t kCacheEntries = 1 << 15;
  /// A word and its tokens, in 64 bytes. A new word takes the place of another with the same slot, so no input can make
  /// the cache grow or its look-up slow.
  struct CachedWord {
    std::uint8_t length = 0, count = 0;
    std::array<char, 30> word;
    std::array<std::int32_t, 8> ids;
  };
  struct Symbol {
    std::int32_t id;
    std::uint32_t previous, next;
  };
  std::vector<CachedWord> cache_;
  std::vector<std::int32_t> ids_;
  std::vector<Merge> merges_;
  std::vector<Symbol> symbols_;
  std::vector<std::uint64_t> queue_;
};

/// The "model" of a tokenizer.json.
class Bpe {
 public:
  /// `byte_level`: whether words are merged from bytes. Throws Error(bad_input) for a malformed model,
  /// Error(unsupported) for another kind, naming the field.
  static Bpe parse(const Json& model, const std::string& where, bool byte_level);

  /// Appends the tokens of a word (bytes of valid UTF-8). Throws Error(unsupported) if a byte-level vocabulary lacks a
  /// byte; characters that others lack are bytes by fallback, the token for the unknown, or nothing.
  void encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const;

  Vocabulary& vocabulary() { return vocabulary_; }
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Bpe(Vocabulary vocabulary, MergeTable merges, bool byte_level);
  void read_characters(class Fields& model);
  void encode_piece(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const;
  void append_bytes(std::string_view word, std::vector<std::int32_t>& ids) const;
  void append_characters(std::string_view word, std::vector<std::int32_t>& ids) const;
  void merge_word(std::string_view word, BpeScratch& scratch) const;
  void merge_by_scan(BpeScratch& scratch) const;
  void merge_by_queue(BpeScratch& scratch) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::array<std::int32_t, 256> byte_ids_;  // -1: the vocabulary lacks it
  bool words_first_ = false;                // ignore_merges: a word that is a token is not merged from its bytes
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> words_;

  bool byte_level_;
  // Of characters:
  ByteFallback fallback_;
  std::int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  bool splits_at_mark_ = false;  // no token has a "▁" after another character: merging stays between them
};

}  // namespace lowp::text
