#include "lowp/server/chat_request.h"

#include <fmt/format.h>

#include "lowp/base/error.h"
#include "lowp/server/api_error.h"

namespace lowp::server {
namespace {

constexpr std::size_t kMostMessages = 10'000, kMostTools = 256;

// A text, or the texts of a list of parts, one a line.
Json read_content(const Json& content, const std::string& path) {
  if (content.is_string() || content.is_null()) return content;
  if (!content.is_array()) throw bad_request(path + ": expected a text or a list of parts", path);
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const Fields part(content[i], fmt::format("{}[{}]", path, i));
    const std::string type = part.string("type").value_or("text");
    if (type != "text" && type != "input_text" && type != "output_text")
      throw bad_request(fmt::format("{}: parts of type {} are not supported, only text", path, quote(type)), path);
    const auto piece = part.string("text");
    if (!piece) throw bad_request(part.path("text") + ": is missing", part.path("text"));
    if (i > 0) text += '\n';
    text += *piece;
  }
  return text;
}

Json read_tool_calls(const Json& calls, const std::string& path) {
  if (!calls.is_array()) throw bad_request(path + ": expected a list", path);
  Json out = calls;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Fields call(calls[i], fmt::format("{}[{}]", path, i));
    const auto function = call.object("function");
    if (!function || !function->string("name"))
      throw bad_request(call.path("function") + ": needs a name", call.path("function"));
    Json& arguments = out[i]["function"]["arguments"];
    if (!arguments.is_string()) continue;
    try {
      arguments = parse_json(arguments.get<std::string>(), function->path("arguments"));
    } catch (const Error& e) {
      throw bad_request(e.what(), function->path("arguments"));
    }
  }
  return out;
}

Json read_tools(const Fields& body) {
  const Json* tools = body.array("tools");
  if (!tools || tools->empty()) return nullptr;
  if (tools->size() > kMostTools) throw bad_request(fmt::format("tools: at most {}", kMostTools), "tools");
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Fields tool((*tools)[i], fmt::format("tools[{}]", i));
    const auto function = tool.object("function");
    if (tool.string("type").value_or("function") != "function" || !function || !function->string("name"))
      throw bad_request(fmt::format("tools[{}]: expected a function with a name", i), "tools");
    function->object("parameters");
  }
  return *tools;
}

// {"name": ..., "arguments": {...}} of one of the tools.
Json call_schema(const Json& tools, const std::string& only) {
  Json ways = Json::array();
  for (const Json& tool : tools) {
    const Json& function = tool["function"];
    if (!only.empty() && function["name"] != only) continue;
    const bool takes = function.contains("parameters") && function["parameters"].is_object();
    Json arguments = takes && !function["parameters"].empty()
                         ? function["parameters"]
                         : Json({{"type", "object"}, {"additionalProperties", false}});
    ways.push_back({{"type", "object"},
                    {"properties", {{"name", {{"const", function["name"]}}}, {"arguments", std::move(arguments)}}},
                    {"required", {"name", "arguments"}}});
  }
  return {{"anyOf", std::move(ways)}};
}

void read_tool_choice(const Fields& body, const ServedModel& model, Json& tools, GenerationRequest& request) {
  const Json* choice = body.find("tool_choice");
  std::string only;
  bool must = false;
  if (choice && choice->is_string()) {
    const std::string word = choice->get<std::string>();
    if (word == "none")
      tools = nullptr;
    else if (word == "required")
      must = true;
    else if (word != "auto")
      throw bad_request("tool_choice: expected none, auto, required or a function", "tool_choice");
  } else if (choice) {
    const auto function = body.object("tool_choice")->object("function");
    only = function ? function->string("name").value_or("") : "";
    must = true;
    if (only.empty()) throw bad_request("tool_choice.function.name: is missing", "tool_choice");
  }
  request.chat.tools = !tools.is_null();
  if (!must) return;
  if (tools.is_null()) throw bad_request("tool_choice: there are no tools", "tool_choice");
  const Json schema = call_schema(tools, only);
  if (schema["anyOf"].empty())
    throw bad_request(fmt::format("tool_choice: there is no tool {}", quote(only)), "tool_choice");
  if (request.constraint)
    throw bad_request("response_format: not together with a call that must come", "response_format");
  request.constraint = model.constraints->of_schema(schema, "tools");
  request.chat.only_calls = true;
}

}  // namespace

Json read_messages(const Fields& body, bool knows_developer) {
  const Json* list = body.array("messages");
  if (!list || list->empty()) throw bad_request("messages: expected at least one", "messages");
  if (list->size() > kMostMessages) throw bad_request(fmt::format("messages: at most {}", kMostMessages), "messages");
  Json messages = Json::array();
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Fields message((*list)[i], fmt::format("messages[{}]", i));
    const auto role = message.string("role");
    if (!role || role->empty()) throw bad_request(message.path("role") + ": is missing", message.path("role"));
    Json out = (*list)[i];
    if (*role == "developer" && !knows_developer) out["role"] = "system";
    const Json* content = message.find("content");
    const Json* calls = message.find("tool_calls");
    if (!content && !calls && *role != "assistant")
      throw bad_request(message.path("content") + ": is missing", message.path("content"));
    out["content"] = content ? read_content(*content, message.path("content")) : calls ? Json(nullptr) : Json("");
    if (calls)
      out["tool_calls"] = read_tool_calls(*calls, message.path("tool_calls"));
    else
      out.erase("tool_calls");
    messages.push_back(std::move(out));
  }
  return messages;
}

GenerationRequest read_chat(const Json& json, const ServedModel& model) {
  const Fields body(json, "");
  GenerationRequest request;
  read_sampling(body, model, request);
  for (const char* unsupported : {"functions", "function_call", "audio", "chat_template", "documents"})
    if (body.find(unsupported)) throw bad_request(fmt::format("{}: is not supported", unsupported), unsupported);
  if (!model.chat_template)
    throw bad_request(
        "this model has no chat template: start the server with --chat-template FILE, or "
        "--chat-template plain",
        "messages");

  const std::int64_t top = body.integer("top_logprobs", 0, model.limits.logprobs).value_or(0);
  if (body.flag("logprobs").value_or(false))
    request.logprobs = static_cast<int>(top);
  else if (top > 0)
    throw bad_request("top_logprobs: only with \"logprobs\": true", "top_logprobs");
  request.engine.logprobs = request.logprobs;

  const text::ChatTemplate& chat = *model.chat_template;
  text::ChatInput input;
  input.messages = read_messages(body, chat.source().find("developer") != std::string::npos);
  input.tools = read_tools(body);
  input.add_generation_prompt = body.flag("add_generation_prompt").value_or(true);
  input.continue_final_message = body.flag("continue_final_message").value_or(false);
  if (const auto more = body.object("chat_template_kwargs")) input.variables = *body.find("chat_template_kwargs");
  if (const auto effort = body.string("reasoning_effort")) input.variables["reasoning_effort"] = *effort;
  request.constraint = read_response_format(body, model);
  read_tool_choice(body, model, input.tools, request);
  request.chat.syntax = ChatSyntax::of_template(chat.source());
  if (request.chat.syntax.harmony) request.skip_special_tokens = false;
  if (request.constraint && request.chat.syntax.harmony)
    throw bad_request("response_format: is not supported for this model's way to answer", "response_format");
  try {
    text::ChatPrompt prompt = chat.prompt(input, *model.tokenizer);
    if (prompt.ids.empty()) throw bad_request("messages: the template makes no text of them", "messages");
    request.chat.in_reasoning = prompt.opens_reasoning;
    request.prompts.push_back(std::move(prompt.ids));
  } catch (const Error& e) {
    throw bad_request(fmt::format("messages: {}", e.what()), "messages");
  }
  const auto asked = body.integer("max_completion_tokens", 1, std::int64_t{1} << 31);
  set_max_tokens(asked ? asked : body.integer("max_tokens", 1, std::int64_t{1} << 31), model.max_tokens, model,
                 request);
  return request;
}

}  // namespace lowp::server
