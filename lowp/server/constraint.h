// A grammar over the tokens of a vocabulary: what the engine may choose next.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "lowp/engine/request.h"
#include "lowp/server/grammar.h"
#include "lowp/text/tokenizer.h"

namespace lowp::server {

/// The bytes of all tokens that are text, sorted, so that those that begin the same are walked once.
class TokenBytes {
 public:
  TokenBytes(const text::Tokenizer& tokenizer, std::vector<std::int32_t> end_ids);

  struct Entry {
    const std::string* bytes;
    std::int32_t id;
    std::size_t shared;  // bytes in common with the entry before
  };
  const std::vector<Entry>& entries() const { return entries_; }
  const std::string& bytes(std::int32_t id) const;
  const std::vector<std::int32_t>& end_ids() const { return end_ids_; }
  std::size_t words() const { return words_; }

 private:
  const text::Tokenizer& tokenizer_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> end_ids_;  // end a text that is complete
  std::size_t words_;
};

/// What a grammar allows, found once for each of its positions and shared by the requests that have the same grammar,
/// which all run on the engine's thread.
class Constraint {
 public:
  Constraint(Grammar grammar, std::shared_ptr<const TokenBytes> tokens)
      : matcher_(std::move(grammar)), tokens_(std::move(tokens)) {}

  Matcher::Position start() const { return matcher_.start(); }
  /// Bit i of the words: whether token i may come.
  const std::vector<std::uint32_t>& allowed(Matcher::Position at);
  Matcher::Position after(Matcher::Position at, std::int32_t token);
  const TokenBytes& tokens() const { return *tokens_; }

 private:
  Matcher matcher_;
  std::shared_ptr<const TokenBytes> tokens_;
  std::unordered_map<Matcher::Position, std::vector<std::uint32_t>> masks_;
};

/// Follows one sequence.
class ConstraintMask : public engine::TokenMask {
 public:
  /// Until `from` has come, everything is allowed; "": from the beginning.
  ConstraintMask(std::shared_ptr<Constraint> constraint, std::string from)
      : constraint_(std::move(constraint)), at_(constraint_->start()), from_(std::move(from)) {}
  void allowed(std::span<std::uint32_t> words) override;
  void accept(std::int32_t token) override;

 private:
  std::shared_ptr<Constraint> constraint_;
  Matcher::Position at_;
  std::string from_, before_;  // what came, as long as `from_` has not
};

/// The constraints of the last requests, by the text of their schema. From any thread.
class Constraints {
 public:
  explicit Constraints(std::shared_ptr<const TokenBytes> tokens) : tokens_(std::move(tokens)) {}
  /// `schema` null: any JSON object. Throws ApiError 400.
  std::shared_ptr<Constraint> of_schema(const Json& schema, const std::string& where);

 private:
  const std::shared_ptr<const TokenBytes> tokens_;
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<Constraint>>> recent_;
};

}  // namespace lowp::server
