#include "lowp/text/chat_template.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/jinja/ast.h"
#include "lowp/text/jinja/renderer.h"

namespace lowp::text {
namespace {

constexpr std::size_t kMostSource = std::size_t{1} << 20;

constexpr const char* kPlain =
    "{% for message in messages %}{{ message.role }}: {{ message.content | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}";

// A mark for places where a special token must not begin or go on: a noncharacter that no text contains.
class Marks {
 public:
  Marks(const Json& messages, const Tokenizer& tokenizer) {
    for (const std::int32_t id : tokenizer.special_ids()) {
      const std::string& token = *tokenizer.token(id);
      specials_.insert(token);
      lengths_.insert(token.size());
      may_start_[static_cast<unsigned char>(token[0])] = true;
    }
    const std::string all = messages.dump(-1, ' ', false, Json::error_handler_t::replace);
    for (char32_t code = 0xFDD0; code <= 0xFDEF; ++code) {
      mark_.clear();
      append_utf8(mark_, code);
      if (all.find(mark_) == std::string::npos) return;
    }
    fail(ErrorCode::bad_input, "the messages contain all of Unicode's noncharacters");
  }

  /// Puts a mark behind the first character of everything in the texts of `value` that spells a special token.
  void add(Json& value) const {
    if (value.is_string()) {
      value = marked(value.get_ref<const std::string&>());
    } else if (value.is_structured()) {
      for (Json& item : value) add(item);
    }
  }

  /// Takes them out again; the offsets where they were.
  std::vector<std::size_t> remove(std::string& text) const {
    std::vector<std::size_t> places;
    std::string out;
    std::size_t at = 0;
    for (std::size_t found; (found = text.find(mark_, at)) != std::string::npos; at = found + mark_.size()) {
      out += text.substr(at, found - at);
      places.push_back(out.size());
    }
    out += text.substr(at);
    text = std::move(out);
    return places;
  }

 private:
  std::string marked(std::string_view text) const {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = next_utf8(text, at).length;
      out += text.substr(at, length);
      if (may_start_[static_cast<unsigned char>(text[at])] &&
          std::any_of(lengths_.begin(), lengths_.end(),
                      [&](std::size_t n) { return specials_.count(text.substr(at, n)) > 0; }))
        out += mark_;
      at += length;
    }
    return out;
  }

  std::unordered_set<std::string_view> specials_;
  std::set<std::size_t> lengths_;
  bool may_start_[256] = {};
  std::string mark_;
};

// Where the last message's text ends in the rendered conversation.
void cut_after_final(std::string& text, const Json& messages) {
  const Json* content = messages.empty() || !messages.back().is_object() || !messages.back().contains("content")
                            ? nullptr
                            : &messages.back()["content"];
  if (!content || !content->is_string())
    fail(ErrorCode::bad_input, "continue_final_message: the last message has no text");
  const std::string_view wanted = jinja::strip(content->get_ref<const std::string&>(), nullptr, true, true);
  const std::size_t found = text.rfind(wanted);
  if (found == std::string::npos)
    fail(ErrorCode::bad_input, "continue_final_message: the template changes the last message's text");
  text.resize(found + wanted.size());
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, Json variables)
    : source_(std::move(source)), variables_(std::move(variables)) {
  if (source_.size() > kMostSource) fail(ErrorCode::bad_input, "a chat template of more than {} bytes", kMostSource);
  root_ = jinja::parse(source_);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

ChatTemplate ChatTemplate::plain() { return ChatTemplate(kPlain, Json::object()); }

std::string ChatTemplate::text(const ChatInput& input, std::time_t now) const {
  jinja::Dict variables;
  for (const Json* more : {&variables_, &input.variables})
    for (const auto& [name, value] : more->items()) variables.set(name, jinja::Value::from_json(value));
  variables.set("messages", jinja::Value::from_json(input.messages));
  variables.set("tools", jinja::Value::from_json(input.tools));
  variables.set("documents", nullptr);
  variables.set("add_generation_prompt", input.add_generation_prompt && !input.continue_final_message);
  std::string text = jinja::Renderer({}, now).render(*root_, variables);
  if (input.continue_final_message) cut_after_final(text, input.messages);
  return text;
}

ChatPrompt ChatTemplate::prompt(const ChatInput& input, const Tokenizer& tokenizer, std::time_t now) const {
  const Marks marks(Json::array({input.messages, input.tools, input.variables}), tokenizer);
  ChatInput marked = input;
  for (Json* part : {&marked.messages, &marked.tools, &marked.variables}) marks.add(*part);
  std::string all = text(marked, now);
  const std::vector<std::size_t> breaks = marks.remove(all);
  return {.ids = tokenizer.encode(all, {.breaks = breaks}),
          .opens_reasoning = jinja::strip(all, nullptr, false, true).ends_with("<think>")};
}

}  // namespace lowp::text
