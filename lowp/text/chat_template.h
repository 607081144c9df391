// Chat messages as the text that a model was trained to answer.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/tokenizer.h"

namespace lowp::text {

namespace jinja {
struct Node;
}

/// What a template is given, as OpenAI's API has it.
struct ChatInput {
  Json messages = Json::array();
  Json tools = nullptr;  // null: none
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the last message goes on: the text ends with it
  Json variables = Json::object();      // more of them
};

struct ChatPrompt {
  std::vector<std::int32_t> ids;
  bool opens_reasoning = false;  // it ends with <think>: the answer begins with reasoning
};

/// A model's chat template: Jinja, in a sandbox with limits.
class ChatTemplate {
 public:
  /// Throws Error(bad_input) or Error(unsupported) naming the line. `variables`: what the template may use beside the
  /// messages: bos_token, eos_token.
  ChatTemplate(std::string source, Json variables);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  /// Messages one after the other under their roles: for models without a template.
  static ChatTemplate plain();

  const std::string& source() const { return source_; }

  /// The text of a conversation. Throws Error(bad_input) for what the template refuses or what is beyond its limits.
  std::string text(const ChatInput& input, std::time_t now = std::time(nullptr)) const;

  /// The same as tokens. What the messages spell is never a special token, only what the template itself spells.
  ChatPrompt prompt(const ChatInput& input, const Tokenizer& tokenizer, std::time_t now = std::time(nullptr)) const;

 private:
  std::string source_;
  Json variables_;
  std::shared_ptr<const jinja::Node> root_;
};

}  // namespace lowp::text
