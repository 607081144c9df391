// Any bytes as a chat template end as text or as an Error, within the limits.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/text/jinja/renderer.h"

using namespace lowp;
using namespace lowp::text;

std::vector<std::string> fuzz_seeds() {
  std::vector<std::string> seeds = {
      "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
      "{% set ns = namespace(n=0) %}{% for i in range(3) if i is odd %}{% set ns.n = ns.n + i %}{% else %}-{% endfor "
      "%}{{ ns.n }}",
      "{% macro f(a, b='x') %}{{ a ~ b }}{% endmacro %}{{ f(1) }}{{ f(b=2, a=[3, {'k': none}]) | tojson(indent=2) }}",
      "{% raw %}{{ x }}{% endraw %}{# c #}{%- if a is not defined and not b or 1 < 2 <= 3 -%}y{%- elif c %}z{% else "
      "%}w{% endif +%}",
      "{{ 'aBc'[::-1].upper().split('B', 1) | join(',') | replace('a', 'b') }}{{ (1 + 2) * 3 // 2 % 4 ** 2 - -1 }}{{ "
      "messages[-1:] | map(attribute='role') | list }}",
  };
  for (const auto& entry : std::filesystem::directory_iterator(LOWP_SOURCE_DIR "/tests/golden/chat"))
    if (entry.path().extension() == ".jinja") seeds.push_back(read_text(entry.path().string()));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Json messages = parse_json(
      R"([{"role": "system", "content": "Be <|x|> good."}, {"role": "user", "content": "Hé\n"},
          {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]}])",
      "fuzz");
  constexpr jinja::Limits kLimits{.steps = 20'000, .bytes = std::size_t{1} << 20, .items = 20'000};
  try {
    const jinja::NodePtr root = jinja::parse({reinterpret_cast<const char*>(data), size});
    jinja::Dict variables;
    variables.set("messages", jinja::Value::from_json(messages));
    variables.set("add_generation_prompt", true);
    const std::string text = jinja::Renderer(kLimits, 0).render(*root, variables);
    if (text.size() > kLimits.bytes) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
