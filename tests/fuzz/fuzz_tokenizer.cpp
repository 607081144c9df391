// Tokenizer::from_json refuses any text with Error, or returns a tokenizer that takes any text and gives it back as far
// as its pipeline promises. The input is a tokenizer.json, a NUL, and the text.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/text/stream_decoder.h"
#include "lowp/text/tokenizer.h"

namespace {

// Tokenizers of a few bytes, for short inputs: other bytes have no token.
std::string seed(std::string_view normalizer, std::string_view pre_tokenizer, std::string_view text) {
  std::string json = R"({"version":"1.0","added_tokens":[
{"id":20,"content":"<s>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true},
{"id":21,"content":"bab","single_word":true,"lstrip":false,"rstrip":true,"normalized":true,"special":false}],"normalizer":)";
  json.append(normalizer).append(",\"pre_tokenizer\":").append(pre_tokenizer);
  json += R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[20],"tokens":["<s>"]}}},
"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","ignore_merges":false,"vocab":{"a":0,"b":1,"Ġ":2,"1":3,"'":4,"s":5,
"Ċ":6,"Ã":7,"©":8,"Ì":9,"ģ":10,"e":11,"ab":12,"aba":13,"Ġa":14,"Ã©":15,"abab":16,"<":17,">":18},
"merges":["a b",["ab","a"],"Ġ a","Ã ©","ab ab"]}})";
  return json + '\0' + std::string(text);
}

// SentencePiece's ways.
const std::string kCharacters = R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"decoder":{"type":"Sequence","decoders":[{"type":"Replace",
"pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,
"stop":0}]},"model":{"type":"BPE","byte_fallback":true,"fuse_unk":true,"unk_token":"u","vocab":{"u":0,"a":1,"▁":2,
"▁a":3,"<0xC3>":4,"<0xA9>":5},"merges":["▁ a"]}})";
const std::string kUnigram = R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},
{"type":"Strip","strip_left":true,"strip_right":true}]},"pre_tokenizer":{"type":"Metaspace","replacement":"▁",
"prepend_scheme":"first"},"decoder":{"type":"Metaspace","replacement":"▁"},"model":{"type":"Unigram","unk_id":0,
"vocab":[["u",0],["a",-1],["▁",-2.5],["▁a",-3],["ab",-1]]}})";

}  // namespace

std::vector<std::string> fuzz_seeds() {
  const std::string bytes = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";
  const auto split = [](std::string_view pattern, std::string_view behavior, std::string_view rest) {
    return R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")" + std::string(pattern) +
           R"("},"behavior":")" + std::string(behavior) + R"(","invert":false},)" + std::string(rest) +
           R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":false}]})";
  };
  return {
      "",
      "{}",
      seed("null", bytes, "ab aba<s> bab a's 1\n\xC3\xA9"),
      seed(R"({"type":"NFC"})", bytes, "e\xCC\x81 \xC3\xA9 abababababababababababababababababababababab"),
      seed("null", split(R"([^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)", "Isolated", ""),
           "ab  a\n 111"),
      seed("null",
           split(R"((?i:'s)|[a-b\\x61]+?|\\w*)", "MergedWithNext",
                 R"({"type":"Punctuation"},{"type":"Digits","individual_digits":true},)"),
           "a's b1' 11"),
      seed("null", split(R"((?:a+)+b)", "Contiguous", R"({"type":"WhitespaceSplit"},)"),
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ab"),
      kCharacters + '\0' + " a  a\xC3\xA9 bb",
      kUnigram + '\0' + " A  ab c\xEF\xAC\x81",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lowp;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  try {
    const auto tokenizer = text::Tokenizer::from_json(input.substr(0, end), "fuzz");
    const std::string_view words = input.substr(std::min(end + 1, size));
    for (std::size_t id = 0; id < tokenizer.vocab_size(); ++id)
      if (const std::string* token = tokenizer.token(static_cast<std::int32_t>(id));
          token && tokenizer.id(*token) != id)
        std::abort();
    const auto ids = tokenizer.encode(words, true);
    const std::string decoded = tokenizer.decode(ids);
    text::StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.push(id);
    if (streamed + stream.flush() != decoded) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
