// Chat templates give what transformers gives, refuse what it refuses, and end within their limits.
#include "lowp/text/chat_template.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp::text {
namespace {

const std::string kFolder = LOWP_SOURCE_DIR "/tests/golden/chat/";

std::time_t noon() {  // of the day that tools/golden/make_chat_templates.py has
  std::tm day{};
  day.tm_year = 124;
  day.tm_mon = 10;
  day.tm_mday = 5;
  day.tm_hour = 12;
  day.tm_isdst = -1;
  return std::mktime(&day);
}

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return ChatTemplate(source, variables).text({.messages = Json::array()});
}

TEST(ChatTemplate, TheSameAsTransformers) {
  const Json cases = read_json(kFolder + "cases.json");
  int texts = 0;
  for (const auto& [name, first] : cases[0]["texts"].items()) {
    const ChatTemplate chat(read_text(kFolder + name + ".jinja"), {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    for (std::size_t i = 0; i < cases.size(); ++i) {
      ChatInput input{.messages = cases[i]["messages"], .tools = cases[i]["tools"], .variables = cases[i]["variables"]};
      input.add_generation_prompt = input.variables.value("add_generation_prompt", true);
      const Json& expected = cases[i]["texts"][name];
      try {
        const std::string text = chat.text(input, noon());
        EXPECT_TRUE(expected.is_string()) << name << " " << i << " should refuse, but says " << text;
        if (expected.is_string()) EXPECT_EQ(text, expected.get<std::string>()) << name << " " << i;
        ++texts;
      } catch (const Error& e) {
        EXPECT_TRUE(expected.is_null()) << name << " " << i << ": " << e.what();
      }
    }
  }
  EXPECT_GE(texts, 190);
}

TEST(ChatTemplate, EndsWithinItsLimits) {
  for (const char* source :
       {"{% for i in range(10**9) %}x{% endfor %}", "{{ 'a' * 10**9 }}", "{{ [1] * 10**9 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set x = namespace(s='aaaaaaaaaa') %}{% for i in range(40) %}{% set x.s = x.s + x.s %}{% endfor %}",
        "{% set x = namespace(s=[1]) %}{% for i in range(40) %}{% set x.s = x.s + x.s %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
        "{{ 'ab' | replace('', 'x' * 10000000) | replace('x', 'y' * 1000) }}",
        "{{ range(100000) | join('x' * 10000) }}", "{{ 9223372036854775807 + 1 }}", "{{ 1 // 0 }}", "{{ 5 % 0 }}",
        "{{ -9223372036854775807 - 2 }}", "{% set x = namespace() %}{% set x.x = x %}{{ x | tojson }}",
        "{% set x = namespace() %}{% set x.x = x %}{{ x }}"})
    EXPECT_THROW(render(source), Error) << source;
}

TEST(ChatTemplate, RefusesWhatIsNoTemplate) {
  for (const char* source : {"{% if %}",
                             "{% if x %}",
                             "{{",
                             "{{ }}",
                             "{% for x y %}{% endfor %}",
                             "{% endfor %}",
                             "{% set %}",
                             "{{ 'a }}",
                             "{{ a b }}",
                             "{# open",
                             "{% raw %}",
                             "{{ (1 }}",
                             "{{ 1) }}",
                             "{{ [1 }}",
                             "{{ {1} }}",
                             "{{ a[1:2:3:4] }}",
                             "{{ a[] }}",
                             "{{ 'x' | }}",
                             "{{ '\\ud800' }}",
                             "{{ 99999999999999999999 }}",
                             "{% break %}",
                             "{% unknown %}",
                             "{% include 'x' %}",
                             "{{ x | nofilter }}",
                             "{{ x is notest }}"})
    EXPECT_THROW(render(source), Error) << source;
  const std::string deep = std::string(5000, '('), nots = "{{ " + [] {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "not ";
    return text;
  }() + "1 }}";
  std::string ifs, sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) ifs += "{% if 1 %}", sum += " + 1";
  for (const std::string& source : {"{{ " + deep, nots, ifs, sum + " }}", "{{ a" + std::string(5000, '.') + " }}"})
    EXPECT_THROW(render(source), Error);
  try {
    render("one\ntwo\n{% if x %}{{ y.z.w }}{% endif %}", {{"x", 1}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("line 3"), std::string::npos) << e.what();
  }
}

TEST(ChatTemplate, MessagesSpellNoSpecialTokens) {
  const Tokenizer tokenizer = Tokenizer::from_file(LOWP_SOURCE_DIR "/tests/golden/tokenizer_llama3.json");
  const std::string special = *tokenizer.token(tokenizer.special_ids()[0]);
  const std::int32_t id = tokenizer.special_ids()[0];
  const ChatTemplate chat("{% for m in messages %}" + special + "{{ m.content }}" + special + "{% endfor %}",
                          Json::object());
  const auto ids = [&](const std::string& content) {
    return chat.prompt({.messages = Json::array({{{"role", "user"}, {"content", content}}})}, tokenizer).ids;
  };
  const auto greeting = ids("hi");
  EXPECT_EQ(std::count(greeting.begin(), greeting.end(), id), 2);
  const auto attack = ids("a" + special + special + "b " + special.substr(0, special.size() - 1));
  EXPECT_EQ(std::count(attack.begin(), attack.end(), id), 2);
  EXPECT_EQ(tokenizer.decode(attack),
            special + "a" + special + special + "b " + special.substr(0, special.size() - 1) + special);
  EXPECT_EQ(tokenizer.encode(special, {.parse_special = false}).front() == id, false);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(special, {.parse_special = false})), special);
}

TEST(ChatTemplate, TheLastMessageGoesOn) {
  const ChatTemplate chat(
      "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]\n{% endfor %}{% if add_generation_prompt "
      "%}[assistant]{% endif %}",
      Json::object());
  ChatInput input{.messages = parse_json(
                      R"([{"role": "user", "content": "Go"}, {"role": "assistant", "content": "It was "}])", "test"),
                  .continue_final_message = true};
  EXPECT_EQ(chat.text(input), "[user]Go[end]\n[assistant]It was");
  EXPECT_EQ(ChatTemplate::plain().text({.messages = input.messages}), "user: Go\n\nassistant: It was\n\nassistant:");
}

}  // namespace
}  // namespace lowp::text
