// The JSON of answers: whole ones and the chunks of streams.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/server/generation_request.h"
#include "lowp/server/sequence_text.h"

namespace lowp::server {

/// What an answer says of itself.
struct AnswerHead {
  std::string id, model;
  std::int64_t created = 0;
};

struct Usage {
  std::int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  Json json() const;
};

/// One of the two forms of OpenAI: text completions, or chat completions.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  /// The chunks of a stream with what came for a choice; none if that says nothing yet.
  virtual std::vector<std::string> chunks(int index, const Piece& piece) = 0;
  /// Takes note of what came for a choice, for body().
  virtual void collect(int index, Piece piece) = 0;
  /// The whole answer.
  virtual Json body(const Usage& usage) const = 0;
  /// The last chunk of a stream, with no choices.
  virtual Json usage_chunk(const Usage& usage) const = 0;
};

/// `count` choices. `logprobs`: whether they list log-probabilities.
std::unique_ptr<AnswerFormat> completion_format(AnswerHead head, const text::Tokenizer& tokenizer, int count,
                                                bool logprobs);
std::unique_ptr<AnswerFormat> chat_format(AnswerHead head, const text::Tokenizer& tokenizer, int count, bool logprobs,
                                          const ChatShape& shape);

/// A JSON string literal.
std::string json_string(const std::string& text);

}  // namespace lowp::server
