// Text to token ids and back, as a model's tokenizer.json defines it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/decoder.h"

namespace lowp::text {

struct EncodeOptions {
  bool add_special_tokens = false;           // puts what the post-processor asks for around the text, such as BOS
  bool parse_special = true;                 // text that spells a special token is that token, not its characters
  std::span<const std::size_t> breaks = {};  // offsets, ascending, that no special token lies across
};

/// A tokenizer.json: byte-level BPE as in GPT-2, Llama 3, Qwen and gpt-oss, SentencePiece's BPE as in Llama 2, Mistral
/// and Gemma, and Unigram. The pipeline: split by added tokens, normalize, split into words, find the tokens of each
/// word, put tokens such as BOS around. "truncation" and "padding" are not applied. May be used from any number of
/// threads at once.
class Tokenizer {
 public:
  /// Throws Error(io), Error(bad_input) for a file that is not what it claims to be, and Error(unsupported) for a
  /// pipeline with a part that lowp does not have: it is named, never left out.
  static Tokenizer from_file(const std::string& path);
  /// The same from the file's text; `where` names the source in messages.
  static Tokenizer from_json(std::string_view text, const std::string& where);
  static Tokenizer from_parsed(const Json& json, const std::string& where);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// The ids of a text. Throws Error(bad_input) with the offset if the text is not UTF-8, Error(unsupported) if it has
  /// a byte without a token or is beyond the effort that the file's regular expressions may take.
  std::vector<std::int32_t> encode(std::string_view utf8, const EncodeOptions& options) const;
  std::vector<std::int32_t> encode(std::string_view utf8, bool add_special_tokens = false) const {
    return encode(utf8, EncodeOptions{.add_special_tokens = add_special_tokens});
  }

  /// The text of ids, with U+FFFD in place of what is not UTF-8. Throws Error(usage) for an id without a token.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  /// The same token by token: appends what is certain to `out`; see StreamDecoder.
  void decode_token(std::int32_t id, bool skip_special, Decoder::State& state, std::string& out) const;
  void decode_end(Decoder::State& state, std::string& out) const;

  /// What an id alone decodes to: bytes, not always whole characters. Throws Error(usage) for an id without a token.
  const std::string& bytes(std::int32_t id) const;

  /// The largest id + 1; a model's embedding may have more rows.
  std::size_t vocab_size() const;
  /// By a token as the file spells it ("Ġthe", "<|endoftext|>").
  std::optional<std::int32_t> id(std::string_view token) const;
  /// The file's spelling; nullptr if no token has the id.
  const std::string* token(std::int32_t id) const;
  /// Whether decode() leaves the token out if asked.
  bool is_special(std::int32_t id) const;
  /// Their ids, ascending.
  std::span<const std::int32_t> special_ids() const;

  /// What encode() puts before and after a text if asked.
  std::span<const std::int32_t> prefix() const;
  std::span<const std::int32_t> suffix() const;
  bool adds_bos() const { return !prefix().empty(); }

 private:
  class Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace lowp::text
