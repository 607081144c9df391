// What a model says in a chat, taken apart: the same whole, in pieces of any size.
#include "lowp/server/chat_output.h"

#include <gtest/gtest.h>

namespace lowp::server {
namespace {

struct Case {
  const char* text;
  ChatSyntax syntax;
  bool in_reasoning, tools, only_calls;
  const char *reasoning, *content;
  std::vector<std::pair<std::string, std::string>> calls = {};
};

TEST(ChatOutput, TakesApart) {
  constexpr ChatSyntax kPlain{}, kThink{.think = true}, kHarmony{.harmony = true};
  const Case cases[] = {
      {" Hello.\n", kPlain, false, false, false, "", " Hello.\n"},
      {"<think>a</think>b", kPlain, false, false, false, "", "<think>a</think>b"},
      {"<think>\nLet me see.\n</think>\n\nYes.", kThink, false, false, false, "Let me see.", "Yes."},
      {"Let me\nsee. </think> Yes.", kThink, true, false, false, "Let me\nsee.", "Yes."},
      {"cut short", kThink, true, false, false, "cut short", ""},
      {"<th", kThink, false, false, false, "", "<th"},
      {"\nNo thoughts.", kThink, false, false, false, "", "\nNo thoughts."},
      {"Wait <tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>",
       kPlain,
       false,
       true,
       false,
       "",
       "Wait ",
       {{"f", "{\"x\":1}"}}},
      {"<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": "
       "{}}</tool_call>",
       kThink,
       false,
       true,
       false,
       "",
       "",
       {{"f", "{}"}, {"g", "{}"}}},
      {"<tool_call>not json</tool_call>", kPlain, false, true, false, "", "<tool_call>not json</tool_call>"},
      {"<tool_call>{\"name\": \"f\"", kPlain, false, true, false, "", "<tool_call>{\"name\": \"f\""},
      {"{\"name\": \"f\", \"parameters\": {\"y\": [2]}}", kPlain, false, true, false, "", "", {{"f", "{\"y\":[2]}"}}},
      {"[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]", kPlain, false, true, false, "", "", {{"f", "{}"}}},
      {"{\"no\": \"call\"}", kPlain, false, true, false, "", "{\"no\": \"call\"}"},
      {"{\"name\": \"f\", \"arguments\": {}}", kThink, false, true, true, "", "", {{"f", "{}"}}},
      {"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>", kHarmony,
       false, false, false, "Hm.", "Four."},
      {"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"x\": 1}<|call|>",
       kHarmony,
       false,
       true,
       false,
       "",
       "",
       {{"f", "{\"x\": 1}"}}},
      {"<|channel|>final<|message|>cut sh", kHarmony, false, false, false, "", "cut sh"},
  };
  for (const Case& c : cases) {
    const std::string text = c.text;
    for (std::size_t step = 1; step <= text.size(); ++step) {
      ChatOutput output(c.syntax, c.in_reasoning, c.tools, c.only_calls);
      std::string reasoning, content;
      std::vector<std::pair<std::string, std::string>> calls;
      const auto add = [&](const ChatOutput::Delta& delta) {
        reasoning += delta.reasoning;
        content += delta.content;
        for (const ToolCall& call : delta.calls) calls.emplace_back(call.name, call.arguments);
      };
      for (std::size_t at = 0; at < text.size(); at += step) add(output.push(std::string_view(text).substr(at, step)));
      add(output.finish());
      EXPECT_EQ(reasoning, c.reasoning) << c.text << " by " << step;
      EXPECT_EQ(content, c.content) << c.text << " by " << step;
      EXPECT_EQ(calls, c.calls) << c.text << " by " << step;
      EXPECT_EQ(output.called(), !c.calls.empty());
    }
  }
}

}  // namespace
}  // namespace lowp::server
