// Any body is a request that the engine would take, or an ApiError of the client's; schemas become grammars or are
// refused.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "lowp/server/api_error.h"
#include "lowp/server/chat_request.h"
#include "lowp/server/constraint.h"

using namespace lowp;
using namespace lowp::server;

std::vector<std::string> fuzz_seeds() {
  return {
      R"({"prompt": "It was", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "n": 2, "stop": ["a", "b"], "seed": -1})",
      R"({"prompt": [[1, 2], "text"], "echo": true, "logprobs": 3, "logit_bias": {"5": -100}, "stream": true, "stream_options": {"include_usage": true}})",
      R"({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}], "logprobs": true, "top_logprobs": 2})",
      R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}], "tool_choice": "required"})",
      R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": 1}"}}]}, {"role": "tool", "content": "1"}]})",
      R"({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {"a": {"enum": ["b", 1]}, "c": {"type": "array", "items": {"$ref": "#/$defs/d"}, "minItems": 2}}, "required": ["a"], "$defs": {"d": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]}}}}}})",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const text::Tokenizer tokenizer =
      text::Tokenizer::from_file(LOWP_SOURCE_DIR "/tests/golden/tokenizer_gpt2.json");
  static const text::ChatTemplate plain = text::ChatTemplate::plain();
  static const auto tokens = std::make_shared<const TokenBytes>(tokenizer, std::vector<std::int32_t>{0});
  static Constraints constraints(tokens);
  static const ServedModel model = {.names = {"model"},
                                    .tokenizer = &tokenizer,
                                    .chat_template = &plain,
                                    .constraints = &constraints,
                                    .context = 512,
                                    .vocab_size = static_cast<std::int64_t>(tokenizer.vocab_size())};
  const std::string body(reinterpret_cast<const char*>(data), size);
  for (const auto read : {read_completion, read_chat}) try {
      const GenerationRequest request = read(parse_body(body), model);
      if (request.prompts.empty() || request.n < 1 || request.sequences() > model.limits.sequences) std::abort();
      if (!request.constraint) continue;
      ConstraintMask mask(request.constraint, "");
      std::vector<std::uint32_t> words(tokens->words());
      for (int i = 0; i < 5; ++i) {
        std::fill(words.begin(), words.end(), 0);
        mask.allowed(words);
        std::int32_t id = 0;
        while (id < model.vocab_size && !(words[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1)) ++id;
        if (id == model.vocab_size) break;
        mask.accept(id);
      }
    } catch (const ApiError& e) {
      if (e.status() >= 500) std::abort();
    } catch (const std::length_error&) {  // beyond the limits of a grammar: the request would end
    }
  return 0;
}
