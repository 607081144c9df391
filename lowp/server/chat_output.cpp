#include "lowp/server/chat_output.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/json.h"

namespace lowp::server {
namespace {

constexpr std::string_view kThink = "<think>", kEndThink = "</think>", kCall = "<tool_call>", kEndCall = "</tool_call>",
                           kCalls = "[TOOL_CALLS]", kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? std::string_view()
                                         : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// How many bytes at the end of `text` may be the beginning of `tag`.
std::size_t partial(std::string_view text, std::string_view tag) {
  for (std::size_t n = std::min(tag.size() - 1, text.size()); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

std::optional<Json> json_of(std::string_view text) try {
  return parse_json(text, "a call of a tool");
} catch (const Error&) {
  return std::nullopt;
}

std::optional<ToolCall> call_of(const Json& json) {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return std::nullopt;
  for (const char* key : {"arguments", "parameters"})
    if (json.contains(key))
      return ToolCall{json["name"].get<std::string>(),
                      json[key].is_string() ? json[key].get<std::string>() : json[key].dump()};
  return std::nullopt;
}

}  // namespace

ChatSyntax ChatSyntax::of_template(std::string_view source) {
  return {.think = source.find(kEndThink) != std::string_view::npos,
          .harmony = source.find("<|channel|>") != std::string_view::npos};
}

ChatOutput::ChatOutput(ChatSyntax syntax, bool in_reasoning, bool tools, bool only_calls)
    : syntax_(syntax),
      tools_(tools),
      state_(only_calls       ? State::whole
             : syntax.harmony ? State::header
             : in_reasoning   ? State::reasoning
                              : State::start) {}

ChatOutput::Delta ChatOutput::push(std::string_view text) {
  held_ += text;
  Delta out;
  syntax_.harmony&& state_ != State::whole ? advance_harmony(out, false) : advance(out, false);
  return out;
}

ChatOutput::Delta ChatOutput::finish() {
  Delta out;
  syntax_.harmony&& state_ != State::whole ? advance_harmony(out, true) : advance(out, true);
  return out;
}

// Text of the part that is being read. White space around reasoning, and before the text that follows it, is left out.
void ChatOutput::emit(std::string_view text, Delta& out) {
  if (state_ != State::reasoning) {
    if (fresh_) text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    if (!text.empty()) fresh_ = false;
    out.content += text;
    return;
  }
  for (const char c : text) {
    if (kSpace.find(c) != std::string_view::npos) {
      if (!fresh_) space_ += c;
    } else {
      out.reasoning += std::exchange(space_, {});
      out.reasoning += c;
      fresh_ = false;
    }
  }
}

// Emits what comes before `tag`; true if it is there, and gone now.
bool ChatOutput::take(std::string_view tag, Delta& out) {
  const std::size_t at = held_.find(tag);
  const std::size_t safe = at != std::string::npos ? at : held_.size() - partial(held_, tag);
  emit(std::string_view(held_).substr(0, safe), out);
  held_.erase(0, at != std::string::npos ? at + tag.size() : safe);
  return at != std::string::npos;
}

bool ChatOutput::parse_calls(std::string_view text, Delta& out) {
  const std::optional<Json> json = json_of(trimmed(text));
  if (!json) return false;
  std::vector<ToolCall> calls;
  for (const Json& one : json->is_array() ? *json : Json::array({*json})) {
    const auto call = call_of(one);
    if (!call) return false;
    calls.push_back(*call);
  }
  called_ |= !calls.empty();
  std::move(calls.begin(), calls.end(), std::back_inserter(out.calls));
  return !calls.empty();
}

void ChatOutput::advance(Delta& out, bool last) {
  if (state_ == State::start) {
    const std::string_view begin = trimmed(held_);
    if (!last && (begin.empty() || (syntax_.think && kThink.starts_with(begin) && begin != kThink) ||
                  (tools_ && kCalls.starts_with(begin) && begin != kCalls)))
      return;
    if (syntax_.think && begin.starts_with(kThink)) {
      held_.erase(0, held_.find(kThink) + kThink.size());
      state_ = State::reasoning;
    } else if (tools_ && (begin.starts_with('{') || begin.starts_with(kCalls))) {
      state_ = State::whole;
    } else {
      state_ = State::content;
      fresh_ = false;  // a text without reasoning keeps its white space
    }
  }
  if (state_ == State::reasoning && take(kEndThink, out)) {
    state_ = State::content;
    fresh_ = true;
    space_.clear();
  }
  while (state_ == State::content || state_ == State::call) {
    if (state_ == State::content) {
      if (!tools_) {
        emit(std::exchange(held_, {}), out);
        break;
      }
      if (!take(kCall, out)) break;
      state_ = State::call;
    }
    const std::size_t end = held_.find(kEndCall);
    if (end == std::string::npos) break;
    if (!parse_calls(std::string_view(held_).substr(0, end), out))
      out.content += std::string(kCall) + held_.substr(0, end + kEndCall.size());
    held_.erase(0, end + kEndCall.size());
    state_ = State::content;
    fresh_ = true;
  }
  if (!last) return;
  std::string_view rest = held_;
  if (state_ == State::call) {
    if (!parse_calls(rest, out)) out.content += std::string(kCall) + std::string(rest);
  } else if (state_ == State::whole) {
    std::string_view calls = trimmed(rest);
    if (calls.starts_with(kCalls)) calls.remove_prefix(kCalls.size());
    if (!parse_calls(calls, out)) out.content += rest;
  } else {
    emit(rest, out);
  }
  held_.clear();
}

// <|channel|>CHANNEL to=TOOL<|message|>TEXT<|end|><|start|>assistant ...
void ChatOutput::advance_harmony(Delta& out, bool last) {
  constexpr std::string_view kMessage = "<|message|>", kChannel = "<|channel|>", kTo = "to=functions.";
  constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
  for (;;) {
    if (state_ == State::header) {
      const std::size_t at = held_.find(kMessage);
      if (at == std::string::npos) {
        if (last && held_.find("<|") == std::string::npos) out.content += std::exchange(held_, {});
        return;
      }
      const std::string_view header = std::string_view(held_).substr(0, at);
      const std::size_t channel = header.rfind(kChannel), to = header.find(kTo);
      const std::string_view name =
          channel == std::string_view::npos ? "final" : header.substr(channel + kChannel.size());
      recipient_.clear();
      if (to != std::string_view::npos) {
        const std::string_view rest = header.substr(to + kTo.size());
        recipient_ = rest.substr(0, rest.find_first_of(" <"));
      }
      state_ = !recipient_.empty() ? State::call : name.starts_with("analysis") ? State::reasoning : State::content;
      fresh_ = true;
      space_.clear();
      held_.erase(0, at + kMessage.size());
    }
    std::size_t end = std::string::npos, length = 0, safe = held_.size();
    for (const std::string_view tag : kEnds) {
      if (const std::size_t at = held_.find(tag); at < end) end = at, length = tag.size();
      safe = std::min(safe, held_.size() - partial(held_, tag));
    }
    const bool over = end != std::string::npos;
    if (state_ == State::call) {
      if (!over && !last) return;
      out.calls.push_back({recipient_, std::string(trimmed(std::string_view(held_).substr(0, end)))});
      called_ = true;
      held_.erase(0, over ? end + length : held_.size());
    } else {
      const std::size_t shown = over ? end : last ? held_.size() : safe;
      emit(std::string_view(held_).substr(0, shown), out);
      held_.erase(0, over ? end + length : shown);
    }
    if (!over) return;
    state_ = State::header;
  }
}

}  // namespace lowp::server
