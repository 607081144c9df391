#include "lowp/server/answer.h"

namespace lowp::server {

Json Usage::json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
}

std::string json_string(const std::string& text) { return Json(text).dump(); }

namespace {

// The four lists of a text completion's log-probabilities.
struct TokenLists {
  Json tokens = Json::array(), token_logprobs = Json::array(), top_logprobs = Json::array(),
       text_offset = Json::array();

  void add(const text::Tokenizer& tokenizer, const ScoredToken& token) {
    std::string text = token_text(tokenizer, token.id);
    text_offset.push_back(token.offset);
    if (!token.score) {
      token_logprobs.push_back(nullptr);
      top_logprobs.push_back(nullptr);
    } else {
      token_logprobs.push_back(token.score->logprob);
      // Several ids may have the same text: the likeliest counts.
      Json top = {{text, token.score->logprob}};
      for (const auto& [id, logprob] : token.score->top) {
        Json& entry = top[token_text(tokenizer, id)];
        if (entry.is_null() || entry.get<float>() < logprob) entry = logprob;
      }
      top_logprobs.push_back(std::move(top));
    }
    tokens.push_back(std::move(text));
  }
  Json json() const {
    return {{"text_offset", text_offset},
            {"token_logprobs", token_logprobs},
            {"tokens", tokens},
            {"top_logprobs", top_logprobs}};
  }
};

class CompletionFormat : public AnswerFormat {
 public:
  CompletionFormat(AnswerHead head, const text::Tokenizer& tokenizer, int count, bool logprobs)
      : head_(std::move(head)), tokenizer_(tokenizer), logprobs_(logprobs), choices_(static_cast<std::size_t>(count)) {
    const std::string shell = envelope(Json::array()).dump();  // ends in "choices":[]}
    chunk_head_ = shell.substr(0, shell.size() - 2);
  }

  std::vector<std::string> chunks(int index, const Piece& piece) override {
    if (piece.empty()) return {};
    std::string text = chunk_head_;
    text += "{\"index\":";
    text += std::to_string(index);
    text += ",\"text\":";
    text += json_string(piece.text);
    text += ",\"logprobs\":";
    text += logprobs_ ? lists(piece.tokens).dump() : "null";
    text += ",\"finish_reason\":";
    text += piece.finish_reason.empty() ? "null" : json_string(piece.finish_reason);
    text += "}]}";
    return {std::move(text)};
  }

  void collect(int index, Piece piece) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    choice.text += piece.text;
    for (const ScoredToken& token : piece.tokens) choice.lists.add(tokenizer_, token);
    if (!piece.finish_reason.empty()) choice.finish_reason = piece.finish_reason;
  }

  Json body(const Usage& usage) const override {
    Json choices = Json::array();
    for (const Choice& choice : choices_)
      choices.push_back({{"index", choices.size()},
                         {"text", choice.text},
                         {"logprobs", logprobs_ ? choice.lists.json() : Json(nullptr)},
                         {"finish_reason", choice.finish_reason}});
    Json body = envelope(std::move(choices));
    body["usage"] = usage.json();
    return body;
  }

  Json usage_chunk(const Usage& usage) const override {
    Json body = envelope(Json::array());
    body["usage"] = usage.json();
    return body;
  }

 private:
  struct Choice {
    std::string text, finish_reason;
    TokenLists lists;
  };
  Json envelope(Json choices) const {
    return {{"id", head_.id},
            {"object", "text_completion"},
            {"created", head_.created},
            {"model", head_.model},
            {"choices", std::move(choices)}};
  }
  Json lists(const std::vector<ScoredToken>& tokens) const {
    TokenLists lists;
    for (const ScoredToken& token : tokens) lists.add(tokenizer_, token);
    return lists.json();
  }

  const AnswerHead head_;
  const text::Tokenizer& tokenizer_;
  const bool logprobs_;
  std::string chunk_head_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<AnswerFormat> completion_format(AnswerHead head, const text::Tokenizer& tokenizer, int count,
                                                bool logprobs) {
  return std::make_unique<CompletionFormat>(std::move(head), tokenizer, count, logprobs);
}

}  // namespace lowp::server
