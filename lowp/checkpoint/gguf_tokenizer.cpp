#include "lowp/checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"

namespace lowp::checkpoint {
namespace {

// tokenizer.ggml.token_type
enum TokenType : int { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's

// How byte-level tokenizers split text, by tokenizer.ggml.pre.
struct Split {
  std::vector<std::string_view> names;  // the first one is written
  const char* regex;                    // nullptr: ByteLevel's own
  bool nfc = false;
  bool words_first = false;  // ignore_merges
  bool adds_bos = false;     // where the metadata does not say
};
const std::array<Split, 5>& splits() {
  static const std::array<Split, 5> kSplits = {{
      {{"gpt-2", "phi-2", "olmo", "jina-v1-en", "roberta-bpe"}, nullptr},
      {{"llama-bpe", "llama3", "llama-v3"},
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       false,
       true,
       true},
      {{"qwen2", "deepseek-r1-qwen"},
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       true},
      {{"qwen35"},
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       true},
      {{"gpt-4o"},
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       false,
       true},
  }};
  return kSplits;
}

// The lists of tokenizer.ggml.*.
struct Tokens {
  const Json* texts;
  const Json* types;   // may be nullptr: all normal
  const Json* scores;  // may be nullptr

  std::size_t size() const { return texts->size(); }
  const std::string& text(std::size_t id) const { return (*texts)[id].get_ref<const std::string&>(); }
  int type(std::size_t id) const { return types ? (*types)[id].get<int>() : static_cast<int>(kNormal); }
};

Tokens read_tokens(const GgufMetadata& metadata) {
  const Tokens tokens{metadata.array("tokenizer.ggml.tokens", GgufType::string),
                      metadata.array("tokenizer.ggml.token_type", GgufType::i32),
                      metadata.array("tokenizer.ggml.scores", GgufType::f32)};
  if (!tokens.texts) fail(ErrorCode::bad_input, "{}: tokenizer.ggml.tokens is missing", metadata.where());
  for (const auto& [name, list] : {std::pair{"token_type", tokens.types}, {"scores", tokens.scores}})
    if (list && list->size() != tokens.size())
      fail(ErrorCode::bad_input, "{}: tokenizer.ggml.{} has {} entries for {} tokens", metadata.where(), name,
           list->size(), tokens.size());
  return tokens;
}

std::optional<std::int64_t> token_id(const GgufMetadata& metadata, const Tokens& tokens, const char* key) {
  const auto id = metadata.count(key);
  if (id && *id >= static_cast<std::int64_t>(tokens.size()))
    fail(ErrorCode::bad_input, "{}: {}: {} is not below {}, the number of tokens", metadata.where(), key, *id,
         tokens.size());
  return id;
}

Json vocabulary(const Tokens& tokens) {
  Json vocab = Json::object();
  auto& object = vocab.get_ref<Json::object_t&>();  // adding through [] would search for every name
  for (std::size_t id = 0; id < tokens.size(); ++id) object.emplace_back(tokens.text(id), id);
  return vocab;
}

// Tokens that are looked for in the text: control tokens, and pieces that the trainer was told to keep whole.
Json added_tokens(const Tokens& tokens) {
  Json added = Json::array();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const int type = tokens.type(id);
    if (tokens.text(id).empty() || (type != kControl && type != kUnknown && type != kUserDefined)) continue;
    added.push_back({{"id", id},
                     {"content", tokens.text(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != kUserDefined}});
  }
  return added;
}

// What is put around a text: BOS and EOS, as far as they are wanted.
Json post_processor(const GgufMetadata& metadata, const Tokens& tokens, bool adds_bos) {
  Json pieces = Json::array(), specials = Json::object();
  const auto add = [&](const char* flag, const char* key, bool fallback) {
    const auto id = token_id(metadata, tokens, key);
    if (!id || !metadata.flag(flag).value_or(fallback)) return;
    const std::string& text = tokens.text(static_cast<std::size_t>(*id));
    pieces.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    specials[text] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
  };
  add("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", adds_bos);
  pieces.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false);
  if (specials.empty()) return nullptr;
  return {{"type", "TemplateProcessing"}, {"single", pieces}, {"pair", Json::array()}, {"special_tokens", specials}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

// "a b", where a space within the first token is the first character.
Json read_merges(const GgufMetadata& metadata) {
  const Json* list = metadata.array("tokenizer.ggml.merges", GgufType::string);
  if (!list) fail(ErrorCode::bad_input, "{}: tokenizer.ggml.merges is missing", metadata.where());
  Json merges = Json::array();
  for (const Json& merge : *list) {
    const std::string& text = merge.get_ref<const std::string&>();
    const auto space = text.find(' ', 1);
    if (space == text.npos || space + 1 == text.size())
      fail(ErrorCode::bad_input, "{}: tokenizer.ggml.merges: {} is not two tokens", metadata.where(), quote(text));
    merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  return merges;
}

Json byte_level_tokenizer(const GgufMetadata& metadata, const Tokens& tokens) {
  const std::string pre = metadata.text("tokenizer.ggml.pre").value_or("gpt-2");
  const Split* split = nullptr;
  for (const Split& candidate : splits())
    if (std::find(candidate.names.begin(), candidate.names.end(), pre) != candidate.names.end()) split = &candidate;
  if (!split)
    fail(ErrorCode::unsupported, "{}: tokenizer.ggml.pre: {} is not a pre-tokenizer that lowp has", metadata.where(),
         quote(pre));
  Json pre_tokenizer = byte_level(!split->regex);
  if (split->regex)
    pre_tokenizer = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", split->regex}}}, {"behavior", "Isolated"}, {"invert", false}},
          pre_tokenizer}}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(tokens)},
          {"normalizer", split->nfc ? Json({{"type", "NFC"}}) : Json(nullptr)},
          {"pre_tokenizer", pre_tokenizer},
          {"post_processor", post_processor(metadata, tokens, split->adds_bos)},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", split->words_first},
            {"vocab", vocabulary(tokens)},
            {"merges", read_merges(metadata)}}}};
}

// SentencePiece merges the neighbours whose whole has the best score; as a list of merges: all the ways in which a
// piece is made of two others, by the score of the piece, and among equals by what comes first in the vocabulary.
Json merges_of_scores(const GgufMetadata& metadata, const Tokens& tokens) {
  if (!tokens.scores) fail(ErrorCode::bad_input, "{}: tokenizer.ggml.scores is missing", metadata.where());
  std::unordered_map<std::string_view, std::size_t> pieces;
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (tokens.type(id) == kNormal || tokens.type(id) == kUserDefined || tokens.type(id) == kUnused)
      pieces.emplace(tokens.text(id), id);
  struct Merge {
    float score;
    std::size_t left, right;
  };
  std::vector<Merge> found;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (tokens.type(id) != kNormal) continue;
    const std::string_view text = tokens.text(id);
    const auto score = (*tokens.scores)[id].get<float>();
    for (std::size_t at = 1; at < text.size(); ++at) {
      if ((text[at] & 0xC0) == 0x80) continue;
      const auto left = pieces.find(text.substr(0, at));
      if (left == pieces.end()) continue;
      if (const auto right = pieces.find(text.substr(at)); right != pieces.end())
        found.push_back({score, left->second, right->second});
    }
  }
  std::sort(found.begin(), found.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
  });
  Json merges = Json::array();
  for (const Merge& merge : found) merges.push_back({tokens.text(merge.left), tokens.text(merge.right)});
  return merges;
}

Json sentencepiece_tokenizer(const GgufMetadata& metadata, const Tokens& tokens) {
  const bool prefix = metadata.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  Json normalizer = replace;
  if (prefix) {
    normalizer = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", kSpace}}, replace}}};
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = token_id(metadata, tokens, "tokenizer.ggml.unknown_token_id");
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(tokens)},
          {"normalizer", normalizer},
          {"pre_tokenizer", nullptr},
          {"post_processor", post_processor(metadata, tokens, true)},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown ? Json(tokens.text(static_cast<std::size_t>(*unknown))) : Json(nullptr)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", vocabulary(tokens)},
            {"merges", merges_of_scores(metadata, tokens)}}}};
}

}  // namespace

Json tokenizer_from_gguf(const GgufMetadata& metadata) {
  const auto model = metadata.text("tokenizer.ggml.model");
  if (!model) fail(ErrorCode::bad_input, "{}: tokenizer.ggml.model is missing", metadata.where());
  const Tokens tokens = read_tokens(metadata);
  if (*model == "gpt2") return byte_level_tokenizer(metadata, tokens);
  if (*model == "llama") return sentencepiece_tokenizer(metadata, tokens);
  fail(ErrorCode::unsupported, "{}: tokenizer.ggml.model: {} is not supported (gpt2, llama are)", metadata.where(),
       quote(*model));
}

Json tokenizer_config_from_gguf(const GgufMetadata& metadata) {
  const Tokens tokens = read_tokens(metadata);
  Json config = Json::object();
  constexpr std::pair<const char*, const char*> kNames[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                                            {"eos_token", "tokenizer.ggml.eos_token_id"},
                                                            {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                                            {"pad_token", "tokenizer.ggml.padding_token_id"}};
  for (const auto& [name, key] : kNames)
    if (const auto id = token_id(metadata, tokens, key)) config[name] = tokens.text(static_cast<std::size_t>(*id));
  if (const auto chat = metadata.text("tokenizer.chat_template")) config["chat_template"] = *chat;
  return config;
}

}  // namespace lowp::checkpoint
