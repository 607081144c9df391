// What a tokenizer.json is refused for, and what the message says.
#include <functional>
#include <vector>

#include "lowp/text/tokenizer_testing.h"

namespace lowp::text {
namespace {

struct Refusal {
  const char* name;
  ErrorCode code;
  std::string words;
  std::function<void(Json&)> change;
};
constexpr auto kBad = ErrorCode::bad_input, kUnsupported = ErrorCode::unsupported;

class TokenizerRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(TokenizerRefuses, File) {
  Json json = sample_tokenizer();
  GetParam().change(json);
  try {
    make(json);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), GetParam().code) << error.what();
    EXPECT_TRUE(std::string(error.what()).starts_with("tokenizer.json")) << error.what();
    EXPECT_PRED_FORMAT2(testing::IsSubstring, GetParam().words, error.what());
  }
}

// Sets a value by its JSON pointer.
std::function<void(Json&)> set(const char* pointer, const char* value) {
  return [=](Json& json) { json[Json::json_pointer(pointer)] = parse_json(value, "test"); };
}
std::function<void(Json&)> erase(const char* parent, const char* key) {
  return [=](Json& json) { json[Json::json_pointer(parent)].erase(key); };
}

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerRefuses,
    testing::ValuesIn(std::vector<Refusal>{
        {"not_an_object", kBad, "expected an object", set("", "[1]")},
        {"version", kUnsupported, "version", set("/version", "\"2.0\"")},
        {"unknown_part", kUnsupported, "'extra'", set("/extra", "{}")},
        {"no_model", kBad, "model is missing", erase("", "model")},
        {"model_of_another_type", kBad, "model: expected an object", set("/model", "\"BPE\"")},
        {"wordpiece", kUnsupported, "'WordPiece'", set("/model/type", "\"WordPiece\"")},
        {"unknown_option", kUnsupported, "'turbo'", set("/model/turbo", "true")},
        {"dropout", kUnsupported, "dropout", set("/model/dropout", "0.1")},
        {"byte_fallback", kUnsupported, "byte_fallback", set("/model/byte_fallback", "true")},
        {"subword_prefix", kUnsupported, "continuing_subword_prefix",
         set("/model/continuing_subword_prefix", "\"##\"")},
        {"no_vocab", kBad, "vocab is missing", erase("/model", "vocab")},
        {"vocab_list", kBad, "vocab: expected an object", set("/model/vocab", "[]")},
        {"id_text", kBad, "'a': expected a token id", set("/model/vocab/a", "\"97\"")},
        {"id_fraction", kBad, "'a': expected a token id", set("/model/vocab/a", "97.0")},
        {"id_negative", kBad, "'a': expected a token id", set("/model/vocab/a", "-1")},
        {"id_beyond_int32", kBad, "'a': expected a token id", set("/model/vocab/a", "2147483647")},
        {"id_beyond_int64", kBad, "'a': expected a token id", set("/model/vocab/a", "99999999999999999999")},
        {"id_far_off", kBad, "far beyond", set("/model/vocab/a", "2147483646")},
        {"id_twice", kBad, "id 98 belongs to two tokens", set("/model/vocab/a", "98")},
        {"no_merges", kBad, "merges is missing", erase("/model", "merges")},
        {"merges_object", kBad, "merges: expected an array", set("/model/merges", "{}")},
        {"merge_of_one", kBad, "merges[0]: a merge is two tokens", set("/model/merges/0", "\"he\"")},
        {"merge_of_three", kBad, "merges[1]: a merge is two tokens", set("/model/merges/1", "[\"t\", \"h\", \"e\"]")},
        {"merge_number", kBad, "merges[2]: a merge is two tokens", set("/model/merges/2", "[1, 2]")},
        {"merge_of_unknown", kBad, "merges[1]: the vocabulary has no token 'tt'", set("/model/merges/1", "\"tt he\"")},
        {"merge_into_unknown", kBad, "merges[1]: the vocabulary has no token 'tt'", set("/model/merges/1", "\"t t\"")},
        {"added_object", kBad, "added_tokens: expected an array", set("/added_tokens", "{}")},
        {"added_without_content", kBad, "added_tokens[0].content is missing", erase("/added_tokens/0", "content")},
        {"added_flag_text", kBad, "lstrip: expected true or false", set("/added_tokens/0/lstrip", "\"no\"")},
        {"added_empty", kBad, "an empty token", set("/added_tokens/0/content", "\"\"")},
        {"added_id_of_another", kBad, "belongs to two tokens", set("/added_tokens/0/id", "97")},
        {"added_two_ids", kBad, "has two ids", set("/added_tokens/0/content", "\"the\"")},
        {"added_id_huge", kBad, "far beyond", set("/added_tokens/0/id", "2000000000")},
        {"added_unknown_field", kUnsupported, "'color'", set("/added_tokens/0/color", "1")},
        {"bert_normalizer", kUnsupported, "normalizer: 'BertNormalizer' is not supported",
         set("/normalizer", R"({"type": "BertNormalizer"})")},
        {"nmt_in_a_sequence", kUnsupported, "normalizer.normalizers[1]: 'Nmt'",
         set("/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nmt"}]})")},
        {"replace_nothing", kUnsupported, "an empty pattern",
         set("/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": "a"})")},
        {"no_pre_tokenizer", kUnsupported, "ByteLevel in one of them only", set("/pre_tokenizer", "null")},
        {"metaspace", kUnsupported, "ByteLevel in one of them only",
         set("/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_"})")},
        {"metaspace_scheme", kBad, "no such scheme: 'maybe'",
         set("/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "maybe"})")},
        {"not_byte_level", kUnsupported, "ByteLevel in one of them only",
         set("/pre_tokenizer", R"({"type": "Digits", "individual_digits": true})")},
        {"after_byte_level", kUnsupported, "'Digits' after ByteLevel",
         set("/pre_tokenizer",
             R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
             {"type": "Digits", "individual_digits": true}]})")},
        {"split_behavior", kBad, "no such behavior: 'Sideways'",
         set("/pre_tokenizer",
             R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways", "invert": false})")},
        {"split_pattern", kUnsupported, "'Glob'",
         set("/pre_tokenizer", R"({"type": "Split", "pattern": {"Glob": "a", "String": "a"}, "behavior": "Removed",
             "invert": false})")},
        {"split_regex", kUnsupported, "not a regular expression",
         set("/pre_tokenizer",
             R"({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Removed", "invert": false})")},
        {"too_many_stages", kUnsupported, "more than 64 components",
         [](Json& json) {
           Json list = Json::array();
           for (int i = 0; i < 100'000; ++i) list.push_back({{"type", "Digits"}, {"individual_digits", true}});
           json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", list}};
         }},
        {"bert_post_processor", kUnsupported, "'BertProcessing'",
         set("/post_processor", R"({"type": "BertProcessing"})")},
        {"template_of_unknown", kBad, "no special token '</s>'",
         set("/post_processor/single/0/SpecialToken/id", "\"</s>\"")},
        {"template_with_unknown_id", kBad, "no token has the id 777",
         set("/post_processor/special_tokens/<s>/ids/0", "777")},
        {"template_without_text", kUnsupported, "without the text", set("/post_processor/single", "[]")},
        {"template_for_two", kUnsupported, "more than the text", set("/post_processor/single/1/Sequence/id", "\"B\"")},
        {"no_decoder", kUnsupported, "decoder: a decoder without", set("/decoder", "null")},
        {"fuse_decoder", kUnsupported, "ByteLevel in one of them only", set("/decoder", R"({"type": "Fuse"})")},
        {"wordpiece_decoder", kUnsupported, "'WordPiece'", set("/decoder", R"({"type": "WordPiece"})")},
        {"byte_fallback_after_fuse", kUnsupported, "'ByteFallback' after Fuse",
         set("/decoder", R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})")},
        {"unigram_of_bytes", kUnsupported, "byte-level Unigram", set("/model/type", "\"Unigram\"")},
    }),
    [](const auto& info) { return info.param.name; });

TEST(TokenizerRefusesText, CutOffAnywhere) {
  const std::string text = sample_tokenizer().dump();
  for (std::size_t length = 0; length < text.size(); length += 1 + length / 50)
    EXPECT_THROW(Tokenizer::from_json(text.substr(0, length), "cut"), Error) << length;
}

TEST(TokenizerRefusesText, NotUtf8) {
  std::string text = sample_tokenizer().dump();
  text[text.find("<s>")] = '\xFF';
  EXPECT_THROW(Tokenizer::from_json(text, "bytes"), Error);
}

}  // namespace
}  // namespace lowp::text
