// What a model says in a chat, taken apart: reasoning, text, calls of tools.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lowp::server {

/// How a model marks the parts, as its chat template shows.
struct ChatSyntax {
  bool think = false;    // <think> ... </think>, as Qwen 3
  bool harmony = false;  // <|channel|>analysis<|message|> ..., as gpt-oss: its special tokens are part of the text
  static ChatSyntax of_template(std::string_view source);
};

struct ToolCall {
  std::string name, arguments;  // JSON text
};

/// Follows the text as it comes.
class ChatOutput {
 public:
  struct Delta {
    std::string reasoning, content;
    std::vector<ToolCall> calls;
    bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
  };

  /// `in_reasoning`: the prompt ends with an open <think>. `tools`: calls are looked for. `only_calls`: the whole text
  /// is one, as the request wanted.
  ChatOutput(ChatSyntax syntax, bool in_reasoning, bool tools, bool only_calls);

  Delta push(std::string_view text);
  /// No more text: what was held back.
  Delta finish();
  bool called() const { return called_; }

 private:
  enum class State { start, reasoning, content, call, whole, header };
  bool take(std::string_view tag, Delta& out);
  void emit(std::string_view text, Delta& out);
  void advance(Delta& out, bool last);
  void advance_harmony(Delta& out, bool last);
  bool parse_calls(std::string_view text, Delta& out);

  const ChatSyntax syntax_;
  const bool tools_;
  State state_;
  std::string held_, space_;  // not decided yet; white space that may be at the end of the reasoning
  std::string recipient_;     // of harmony: the tool that the message calls
  bool fresh_ = true;         // nothing of this part was emitted yet
  bool called_ = false;
};

}  // namespace lowp::server
