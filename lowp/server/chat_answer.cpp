// The JSON of chat completions.
#include <fmt/format.h>

#include <random>

#include "lowp/server/answer.h"

namespace lowp::server {
namespace {

Json bytes_of(const text::Tokenizer& tokenizer, std::int32_t id) {
  Json bytes = Json::array();
  if (tokenizer.token(id))
    for (const char c : tokenizer.bytes(id)) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json token_json(const text::Tokenizer& tokenizer, std::int32_t id, float logprob) {
  return {{"token", token_text(tokenizer, id)}, {"logprob", logprob}, {"bytes", bytes_of(tokenizer, id)}};
}

Json logprobs_json(const text::Tokenizer& tokenizer, const std::vector<ScoredToken>& tokens) {
  Json content = Json::array();
  for (const ScoredToken& token : tokens) {
    if (!token.score) continue;
    Json entry = token_json(tokenizer, token.id, token.score->logprob);
    Json top = Json::array();
    for (const auto& [id, logprob] : token.score->top) top.push_back(token_json(tokenizer, id, logprob));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

std::string call_id() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("call_{:016x}", random());
}

class ChatFormat : public AnswerFormat {
 public:
  ChatFormat(AnswerHead head, const text::Tokenizer& tokenizer, int count, bool logprobs, const ChatShape& shape)
      : head_(std::move(head)),
        tokenizer_(tokenizer),
        logprobs_(logprobs),
        choices_(static_cast<std::size_t>(count), Choice(shape)) {}

  std::vector<std::string> chunks(int index, const Piece& piece) override {
    std::vector<std::string> out;
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    const auto add = [&](Json delta, const Json& finish_reason, Json logprobs) {
      const Json one = {{"index", index},
                        {"delta", std::move(delta)},
                        {"logprobs", std::move(logprobs)},
                        {"finish_reason", finish_reason}};
      out.push_back(envelope("chat.completion.chunk", Json::array({one})).dump());
    };
    const ChatOutput::Delta delta = choice.read(piece);
    if (!delta.empty() || !piece.tokens.empty() || (!choice.begun && !piece.empty())) {
      Json json = Json::object();
      if (!std::exchange(choice.begun, true)) json = {{"role", "assistant"}, {"content", ""}};
      if (!delta.content.empty()) json["content"] = delta.content;
      if (!delta.reasoning.empty()) json["reasoning_content"] = delta.reasoning;
      if (!delta.calls.empty()) json["tool_calls"] = calls_json(choice, delta.calls, true);
      add(std::move(json), nullptr, logprobs_ ? logprobs_json(tokenizer_, piece.tokens) : Json(nullptr));
    }
    if (!piece.finish_reason.empty()) add(Json::object(), choice.reason(piece), nullptr);
    return out;
  }

  void collect(int index, Piece piece) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    const ChatOutput::Delta delta = choice.read(piece);
    choice.content += delta.content;
    choice.reasoning += delta.reasoning;
    for (Json& call : calls_json(choice, delta.calls, false)) choice.calls.push_back(std::move(call));
    for (ScoredToken& token : piece.tokens) choice.tokens.push_back(std::move(token));
    if (!piece.finish_reason.empty()) choice.finish_reason = choice.reason(piece);
  }

  Json body(const Usage& usage) const override {
    Json choices = Json::array();
    for (const Choice& choice : choices_) {
      Json message = {
          {"role", "assistant"},
          {"content", choice.content.empty() && !choice.calls.empty() ? Json(nullptr) : Json(choice.content)},
          {"refusal", nullptr}};
      if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
      if (!choice.calls.empty()) message["tool_calls"] = choice.calls;
      choices.push_back({{"index", choices.size()},
                         {"message", std::move(message)},
                         {"logprobs", logprobs_ ? logprobs_json(tokenizer_, choice.tokens) : Json(nullptr)},
                         {"finish_reason", choice.finish_reason}});
    }
    Json body = envelope("chat.completion", std::move(choices));
    body["usage"] = usage.json();
    return body;
  }

  Json usage_chunk(const Usage& usage) const override {
    Json body = envelope("chat.completion.chunk", Json::array());
    body["usage"] = usage.json();
    return body;
  }

 private:
  struct Choice {
    explicit Choice(const ChatShape& shape) : output(shape.syntax, shape.in_reasoning, shape.tools, shape.only_calls) {}
    ChatOutput output;
    std::string content, reasoning, finish_reason;
    Json calls = Json::array();
    std::size_t call_count = 0;
    std::vector<ScoredToken> tokens;
    bool begun = false;

    ChatOutput::Delta read(const Piece& piece) {
      ChatOutput::Delta delta = output.push(piece.text);
      if (piece.finish_reason.empty()) return delta;
      ChatOutput::Delta rest = output.finish();
      delta.content += rest.content;
      delta.reasoning += rest.reasoning;
      for (ToolCall& call : rest.calls) delta.calls.push_back(std::move(call));
      return delta;
    }
    std::string reason(const Piece& piece) const {
      return output.called() && piece.finish_reason == "stop" ? "tool_calls" : piece.finish_reason;
    }
  };

  static Json calls_json(Choice& choice, const std::vector<ToolCall>& calls, bool indexed) {
    Json out = Json::array();
    for (const ToolCall& call : calls) {
      Json json = Json::object();
      if (indexed) json["index"] = choice.call_count;
      ++choice.call_count;
      json["id"] = call_id();
      json["type"] = "function";
      json["function"] = {{"name", call.name}, {"arguments", call.arguments}};
      out.push_back(std::move(json));
    }
    return out;
  }

  Json envelope(const char* object, Json choices) const {
    return {{"id", head_.id},
            {"object", object},
            {"created", head_.created},
            {"model", head_.model},
            {"choices", std::move(choices)}};
  }

  const AnswerHead head_;
  const text::Tokenizer& tokenizer_;
  const bool logprobs_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<AnswerFormat> chat_format(AnswerHead head, const text::Tokenizer& tokenizer, int count, bool logprobs,
                                          const ChatShape& shape) {
  return std::make_unique<ChatFormat>(std::move(head), tokenizer, count, logprobs, shape);
}

}  // namespace lowp::server
