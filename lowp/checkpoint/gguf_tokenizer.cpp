#include "lowp/checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/base/whole_number.h"

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

std::optional<std::size_t> token_id(const GgufMetadata& metadata, const Tokens& tokens, const char* key) {
  const auto id = metadata.count(key);
  if (!id) return std::nullopt;
  if (static_cast<std::size_t>(*id) >= tokens.size())
    fail(ErrorCode::bad_input, "{}: {}: {} is not below {}, the number of tokens", metadata.where(), key, *id,
         tokens.size());
  return static_cast<std::size_t>(*id);
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
    const std::string& text = tokens.text(*id);
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
            {"unk_token", unknown ? Json(tokens.text(*unknown)) : Json(nullptr)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", vocabulary(tokens)},
            {"merges", merges_of_scores(metadata, tokens)}}}};
}

// ---- and back

// The text of a special token in tokenizer_config.json: a string, or an object with one.
std::string special_text(const Json& config, const char* key) {
  const auto at = config.find(key);
  if (at == config.end()) return "";
  const Json& value = at->is_object() ? at->value("content", Json()) : *at;
  return value.is_string() ? value.get<std::string>() : "";
}

// The parts of a pipeline, Sequences taken apart.
std::vector<const Json*> components(const Json& part, const char* list) {
  if (!part.is_object()) return {};
  if (part.value("type", "") != "Sequence") return {&part};
  std::vector<const Json*> all;
  if (const auto elements = part.find(list); elements != part.end() && elements->is_array())
    for (const Json& element : *elements)
      for (const Json* one : components(element, list)) all.push_back(one);
  return all;
}

const Json* find_component(const std::vector<const Json*>& all, std::string_view type) {
  for (const Json* one : all)
    if (one->value("type", "") == type) return one;
  return nullptr;
}

const Split* split_of(const Json& tokenizer, const Json& model) {
  const Json splitter = tokenizer.value("pre_tokenizer", Json()), normalizer = tokenizer.value("normalizer", Json());
  const auto parts = components(splitter, "pretokenizers");
  const Json* split = find_component(parts, "Split");
  const bool nfc = find_component(components(normalizer, "normalizers"), "NFC");
  const std::string regex = split && split->contains("pattern") ? (*split)["pattern"].value("Regex", "") : "";
  if (parts.size() != (split ? 2u : 1u)) return nullptr;
  for (const Split& known : splits())
    if (regex == (known.regex ? known.regex : "") && nfc == known.nfc &&
        (model.value("ignore_merges", false) == known.words_first || !known.regex))
      return &known;
  return nullptr;
}

// The two tokens of a merge, as GGUF joins them.
std::string joined(const Json& merge) {
  if (merge.is_string()) return merge.get<std::string>();
  if (!merge.is_array() || merge.size() != 2) return "";
  return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
}

// SentencePiece's scores of a list of merges: the earlier a piece is made, the better.
std::vector<float> scores_of(const Json& merges, const std::vector<std::string>& tokens) {
  std::unordered_map<std::string, std::size_t> rank;
  for (const Json& merge : merges) {
    const std::string pair = joined(merge);
    const auto space = pair.find(' ', 1);
    if (space != pair.npos) rank.emplace(pair.substr(0, space) + pair.substr(space + 1), rank.size());
  }
  std::vector<float> scores;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto at = rank.find(tokens[id]);
    scores.push_back(-static_cast<float>(at == rank.end() ? rank.size() + id : at->second));
  }
  return scores;
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
}

std::string with_spaces(std::string text) {
  for (std::size_t at; (at = text.find(kSpace)) != text.npos;) text.replace(at, kSpace.size(), " ");
  return text;
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
    if (const auto id = token_id(metadata, tokens, key)) config[name] = tokens.text(*id);
  if (const auto chat = metadata.text("tokenizer.chat_template")) config["chat_template"] = *chat;
  return config;
}

void tokenizer_to_gguf(const Json& tokenizer, const Json& tokenizer_config, const Json& config,
                       const std::string& where, std::map<std::string, GgufValue, std::less<>>& out) try {
  const Json model = tokenizer.value("model", Json::object());
  const auto unsupported = [&](std::string_view why) {
    fail(ErrorCode::unsupported, "{}: no tokenizer of GGUF is like this one: {}", where, why);
  };
  if (model.value("type", "BPE") != "BPE") unsupported("its model is not BPE");
  const Json vocab = model.value("vocab", Json::object()), merges = model.value("merges", Json::array());
  const Json added = tokenizer.value("added_tokens", Json::array());

  std::size_t size = config.value("vocab_size", std::size_t{0});
  std::unordered_map<std::string, std::size_t> ids;
  const auto note = [&](const std::string& token, const Json& id) {
    const auto number = whole_number(id);
    if (!number || *number > (1u << 24))
      fail(ErrorCode::bad_input, "{}: token {}: {} is not an id", where, quote(token), quote(id.dump()));
    ids.emplace(token, *number);
    size = std::max(size, static_cast<std::size_t>(*number) + 1);
  };
  for (const auto& [token, id] : vocab.items()) note(token, id);
  for (const Json& token : added) note(token.at("content").get<std::string>(), token.at("id"));
  std::vector<std::string> tokens(size);
  std::vector<int> types(size, kUnused);
  for (std::size_t id = 0; id < size; ++id) tokens[id] = fmt::format("[PAD{}]", id);
  for (const auto& [token, id] : ids) {
    tokens[id] = token;
    types[id] = kNormal;
  }
  const bool fallback = model.value("byte_fallback", false);
  for (const Json& token : added) {
    const auto id = token.at("id").get<std::size_t>();
    types[id] = token.value("special", false) ? kControl : kUserDefined;
    // llama.cpp looks for them in the text as it is.
    if (fallback && types[id] == kUserDefined) tokens[id] = with_spaces(tokens[id]);
  }

  const auto text = [&](const char* key, const std::string& value) {
    out[key] = {GgufType::string, GgufType::u32, value};
  };
  const auto flag = [&](const char* key, bool value) { out[key] = {GgufType::boolean, GgufType::u32, value}; };
  if (fallback) {
    text("tokenizer.ggml.model", "llama");
    text("tokenizer.ggml.pre", "default");
    const Json normalizer = tokenizer.value("normalizer", Json()), splitter = tokenizer.value("pre_tokenizer", Json());
    const auto normalizers = components(normalizer, "normalizers");
    const auto splitters = components(splitter, "pretokenizers");
    const Json* metaspace = find_component(splitters, "Metaspace");
    if (!metaspace && !find_component(normalizers, "Replace")) unsupported("spaces are not marked");
    flag("tokenizer.ggml.add_space_prefix", find_component(normalizers, "Prepend") ||
                                                (metaspace && metaspace->value("prepend_scheme", "always") != "never"));
    for (std::size_t id = 0; id < size; ++id)
      if (types[id] == kNormal && is_byte_token(tokens[id])) types[id] = kByte;
    out["tokenizer.ggml.scores"] = {GgufType::array, GgufType::f32, scores_of(merges, tokens)};
  } else {
    const Split* split = split_of(tokenizer, model);
    if (!split) unsupported("its normalizer, pre-tokenizer and ignore_merges are of no known family");
    text("tokenizer.ggml.model", "gpt2");
    text("tokenizer.ggml.pre", std::string(split->names.front()));
    Json list = Json::array();
    for (const Json& merge : merges) list.push_back(joined(merge));
    out["tokenizer.ggml.merges"] = {GgufType::array, GgufType::string, std::move(list)};
  }

  const auto id = [&](const char* key, std::optional<std::size_t> value) {
    if (value) out[key] = {GgufType::u32, GgufType::u32, *value};
  };
  const auto id_of = [&](const std::string& token) -> std::optional<std::size_t> {
    const auto at = ids.find(token);
    return at == ids.end() ? std::nullopt : std::optional(at->second);
  };
  std::vector<std::size_t> ends;
  if (const auto at = config.find("eos_token_id"); at != config.end())
    for (const Json& end : at->is_array() ? *at : Json::array({*at}))
      if (const auto number = whole_number(end)) ends.push_back(*number);
  auto bos = id_of(special_text(tokenizer_config, "bos_token"));
  if (const auto at = config.find("bos_token_id"); !bos && at != config.end()) bos = whole_number(*at);
  const auto eos = id_of(special_text(tokenizer_config, "eos_token"));
  std::vector<std::size_t> others;
  for (const std::size_t end : ends)
    if (end != eos.value_or(ends.front())) others.push_back(end);
  id("tokenizer.ggml.bos_token_id", bos);
  id("tokenizer.ggml.eos_token_id", eos ? eos : ends.empty() ? std::nullopt : std::optional(ends.front()));
  if (!others.empty()) id("tokenizer.ggml.eot_token_id", others[0]);
  if (others.size() > 1) id("tokenizer.ggml.eom_token_id", others[1]);
  const std::string unknown = model.contains("unk_token") && model["unk_token"].is_string()
                                  ? model["unk_token"].get<std::string>()
                                  : special_text(tokenizer_config, "unk_token");
  if (const auto found = id_of(unknown)) {
    id("tokenizer.ggml.unknown_token_id", found);
    if (fallback) types[*found] = kUnknown;
  }
  id("tokenizer.ggml.padding_token_id", id_of(special_text(tokenizer_config, "pad_token")));

  bool adds_bos = false, adds_eos = false, after = false;
  const Json processor = tokenizer.value("post_processor", Json());
  for (const Json* part : components(processor, "processors"))
    for (const Json& piece : part->value("single", Json::array())) {
      if (piece.contains("SpecialToken")) (after ? adds_eos : adds_bos) = true;
      after = after || piece.contains("Sequence");
    }
  flag("tokenizer.ggml.add_bos_token", adds_bos);
  flag("tokenizer.ggml.add_eos_token", adds_eos);
  if (const std::string chat = special_text(tokenizer_config, "chat_template"); !chat.empty())
    text("tokenizer.chat_template", chat);
  out["tokenizer.ggml.tokens"] = {GgufType::array, GgufType::string, tokens};
  out["tokenizer.ggml.token_type"] = {GgufType::array, GgufType::i32, types};
} catch (const Json::exception& error) {
  fail(ErrorCode::bad_input, "{}: a part of another kind than a tokenizer.json has: {}", where, error.what());
}

}  // namespace lowp::checkpoint
