// For tests: tokenizer.json texts to bend.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/text/tokenizer.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

/// A tokenizer of the 256 bytes (ids are the bytes) and the merges "h"+"e" = 256, "t"+"he" = 257, " "+"the" = 258;
/// 259 is the added token "<s>".
inline Json sample_tokenizer() {
  Json json = parse_json(R"({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
    "added_tokens": [{"id": 259, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "post_processor": {"type": "TemplateProcessing", "pair": [],
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [259], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {}, "merges": ["h e", "t he", "Ġ the"]}})",
                         "sample");
  auto& vocab = json["model"]["vocab"];
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_byte_character(token, static_cast<unsigned char>(byte));
    vocab[token] = byte;
  }
  vocab["he"] = 256, vocab["the"] = 257, vocab["\u0120the"] = 258;
  return json;
}

inline Tokenizer make(const Json& json) { return Tokenizer::from_json(json.dump(), "tokenizer.json"); }

}  // namespace lowp::text
