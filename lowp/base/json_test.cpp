#include "lowp/base/json.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "lowp/base/error.h"
#include "lowp/base/whole_number.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

// The message of the Error that parsing throws; empty if it succeeds.
std::string refusal(std::string_view text, JsonLimits limits = {}) {
  try {
    parse_json(text, "config.json", limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_input);
    return error.what();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeys) {
  const Json value = parse_json(R"({"z": 1, "a": {"y": 2, "b": 3}, "m": []})", "x");
  EXPECT_EQ(value.dump(), R"({"z":1,"a":{"y":2,"b":3},"m":[]})");
}

TEST(Json, ParsesEveryKindOfValue) {
  EXPECT_EQ(parse_json(" [null, true, false, -1, 1.5, \"\\u00e9\\n\", {}, []] ", "x").dump(),
            "[null,true,false,-1,1.5,\"\u00e9\\n\",{},[]]");
  EXPECT_EQ(parse_json("7", "x"), 7);
  EXPECT_EQ(parse_json(R"({"":{"":{"":[{"":0}]}}})", "x").dump(), R"({"":{"":{"":[{"":0}]}}})");
}

TEST(Json, KeepsIntegersExactly) {
  EXPECT_EQ(parse_json("18446744073709551615", "x").get<std::uint64_t>(), UINT64_MAX);
  EXPECT_EQ(parse_json("9007199254740993", "x").get<std::uint64_t>(), 9007199254740993u);
  EXPECT_EQ(parse_json("-9223372036854775808", "x").get<std::int64_t>(), INT64_MIN);
  EXPECT_TRUE(parse_json("18446744073709551616", "x").is_number_float());
}

TEST(Json, LimitsDepth) {
  EXPECT_EQ(refusal(nested(3), {.depth = 3}), "");
  EXPECT_EQ(refusal(nested(4), {.depth = 3}), "config.json: JSON nested deeper than 3");
  EXPECT_EQ(refusal(R"({"a":{"b":{"c":{}}}})", {.depth = 3}), "config.json: JSON nested deeper than 3");
  EXPECT_EQ(refusal("[[],[],[],[]]", {.depth = 2}), "");
  EXPECT_EQ(refusal(std::string(1'000'000, '[')), "config.json: JSON nested deeper than 64");
}

TEST(Json, LimitsSize) {
  EXPECT_EQ(refusal("[1]", {.bytes = 3}), "");
  EXPECT_EQ(refusal("[12]", {.bytes = 3}), "config.json: JSON of 4 bytes, at most 3 accepted");
}

// A look-up per key would make this take minutes.
TEST(Json, ParsesManyKeysInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += fmt::format("\"layer.{}\":0,", i);
  text.back() = '}';
  EXPECT_EQ(parse_json(text, "x").size(), 200'000u);
}

struct Malformed {
  const char* name;
  std::string text;
  std::string words;
};

class JsonRefuses : public testing::TestWithParam<Malformed> {};

TEST_P(JsonRefuses, Text) {
  const std::string message = refusal(GetParam().text);
  EXPECT_TRUE(message.starts_with("config.json: ")) << message;
  EXPECT_PRED_FORMAT2(testing::IsSubstring, GetParam().words, message);
}

INSTANTIATE_TEST_SUITE_P(All, JsonRefuses,
                         testing::ValuesIn(std::vector<Malformed>{
                             {"empty", "", "unexpected end of input"},
                             {"cut_off", R"({"a": [1)", "line 1, column 9"},
                             {"two_values", "{} {}", "expected end of input"},
                             {"bytes_after_nul", std::string("{}\0{", 4), "NUL at byte 2"},
                             {"comment", "{/* */}", "invalid literal"},
                             {"trailing_comma", "[1,]", "syntax error"},
                             {"leading_zero", "[01]", "syntax error"},
                             {"nan", "[NaN]", "invalid literal"},
                             {"single_quotes", "{'a': 1}", "invalid literal"},
                             {"number_beyond_double", "[1e999]", "number overflow"},
                             {"control_character_in_string", "\"a\nb\"", "control character"},
                             {"lone_surrogate", R"("\ud800")", "surrogate"},
                             {"utf8_stray_byte", "\"a\xFFz\"", "ill-formed UTF-8"},
                             {"utf8_overlong", "\"\xC0\xAF\"", "ill-formed UTF-8"},
                             {"utf8_surrogate", "\"\xED\xA0\x80\"", "ill-formed UTF-8"},
                             {"utf8_cut_off", "\"\xE2\x82\"", "ill-formed UTF-8"},
                             {"duplicate_key", R"({"a": 1, "b": 2, "a": 3})", "duplicate JSON key 'a'"},
                             {"duplicate_key_escaped", R"({"a": 1, "\u0061": 3})", "duplicate JSON key 'a'"},
                             {"duplicate_key_inside", R"([{"x": {"k": 1, "k": 1}}])", "duplicate JSON key 'k'"},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(Json, EqualKeysInDifferentObjectsAreFine) { EXPECT_EQ(refusal(R"([{"a": {"a": 1}}, {"a": 2}])"), ""); }

TEST(Json, MessagesDoNotRepeatForeignBytes) {
  EXPECT_LT(refusal("[\"" + std::string(10'000, 'a') + "\xFF\"]").size(), 300u);
  EXPECT_LT(refusal("[" + std::string(10'000, '9') + "e999]").size(), 300u);
}

TEST(Json, ReadsFiles) {
  const TempDir folder;
  EXPECT_EQ(read_json(folder.write("a.json", "[1, 2]")).size(), 2u);
  try {
    read_json(folder.write("b.json", "[1, 2"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_PRED_FORMAT2(testing::IsSubstring, folder / "b.json", error.what());
  }
}

TEST(WholeNumber, ParsedOrMade) {
  EXPECT_EQ(whole_number(parse_json("18446744073709551615", "t")), 18446744073709551615u);
  EXPECT_EQ(whole_number(Json(7)), 7u);
  EXPECT_EQ(whole_number(Json(std::int64_t{0})), 0u);
  for (const Json& value : {Json(-1), Json(1.0), Json("1"), Json(true), Json(nullptr)})
    EXPECT_EQ(whole_number(value), std::nullopt) << value.dump();
}

TEST(Quote, CutsAndCleans) {
  EXPECT_EQ(quote("model.norm"), "'model.norm'");
  EXPECT_EQ(quote("a\x1B[31m\n-\x7F"), "'a?[31m?-?'");
  EXPECT_EQ(quote(std::string(200, 'x')), "'" + std::string(200, 'x') + "'");
  EXPECT_EQ(quote(std::string(201, 'x')), "'" + std::string(200, 'x') + "...'");
  EXPECT_EQ(quote(std::string(199, 'x') + "\u20AC"), "'" + std::string(199, 'x') + "...'");
  EXPECT_EQ(quote(std::string(300, '\x80')), "'...'") << "no lead byte to find";
}

}  // namespace
}  // namespace lowp
