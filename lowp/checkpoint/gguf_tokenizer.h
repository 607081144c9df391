// tokenizer.json of a tokenizer that is in GGUF's metadata, and the reverse (checkpoint-formats 8.6).
#pragma once

#include "lowp/base/json.h"
#include "lowp/checkpoint/gguf.h"

namespace lowp::checkpoint {

/// The tokenizer.json of tokenizer.ggml.*: models "gpt2" (byte-level BPE, with the split that tokenizer.ggml.pre names)
/// and "llama" (SentencePiece's BPE: merges follow from the scores). Throws Error(bad_input) for lists that do not fit
/// together, Error(unsupported) naming another model or pre-tokenizer.
Json tokenizer_from_gguf(const GgufMetadata& metadata);

/// tokenizer_config.json: the special tokens by their names, and the chat template if there is one.
Json tokenizer_config_from_gguf(const GgufMetadata& metadata);

/// Adds tokenizer.ggml.* of a tokenizer.json to `out`. `config` is config.json, with the ids that end a text and the
/// number of rows of the embedding: ids without a token are filled. Throws Error(unsupported), naming `where`, for a
/// pipeline that has no name in GGUF.
void tokenizer_to_gguf(const Json& tokenizer, const Json& tokenizer_config, const Json& config,
                       const std::string& where, std::map<std::string, GgufValue, std::less<>>& out);

}  // namespace lowp::checkpoint
