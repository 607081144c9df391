// Unigram: the tokens of a word whose log probabilities have the largest sum.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lowp/text/fields.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

/// What encoding keeps from word to word; one user at a time.
class UnigramScratch {
 private:
  friend class Unigram;
  struct Best {
    double score = 0;
    std::size_t from = 0;
    std::int32_t id = -1;  // -1: nothing ends here
  };
  std::vector<Best> best_;  // by byte offset
  std::vector<Best> path_;
};

/// The "model" of a tokenizer.json.
class Unigram {
 public:
  /// Throws Error(bad_input) for a malformed model, naming the field.
  static Unigram parse(const Json& model, const std::string& where);

  /// Appends the tokens of a word, valid UTF-8. Throws Error(unsupported) for a character that is no token if the model
  /// has no token for the unknown.
  void encode(std::string_view word, UnigramScratch& scratch, std::vector<std::int32_t>& out) const;

  Vocabulary& vocabulary() { return vocabulary_; }
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  explicit Unigram(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  void insert(std::string_view token, std::int32_t id);
  void encode_unknown(std::string_view text, std::vector<std::int32_t>& out) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;  // by id
  // A trie of the tokens' bytes: the root is node 0, and the child of node n by byte b has the key n * 256 + b.
  std::unordered_map<std::uint64_t, std::uint32_t> children_;
  std::vector<std::int32_t> ends_ = {-1};  // by node: the token that ends there, or -1
  std::int32_t unknown_ = -1;
  double unknown_score_ = 0;
  ByteFallback fallback_;
};

}  // namespace lowp::text
