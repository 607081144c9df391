// Schemas as grammars: what they accept is JSON that the schema accepts, and what they refuse is named.
#include <gtest/gtest.h>

#include <random>

#include "lowp/server/api_error.h"
#include "lowp/server/json_schema.h"

namespace lowp::server {
namespace {

Json parsed(const char* text) { return parse_json(text, "test"); }

bool accepts(Matcher& matcher, std::string_view text) {
  Matcher::Position at = matcher.start();
  for (const char c : text) {
    at = matcher.step(at, static_cast<std::uint8_t>(c));
    if (at == Matcher::kDead) return false;
  }
  return matcher.complete(at);
}

// A text that the grammar allows, drawn byte by byte.
std::string any_text(Matcher& matcher, std::mt19937& random) {
  std::string text;
  Matcher::Position at = matcher.start();
  while (text.size() < 4000) {
    std::vector<std::pair<std::uint8_t, Matcher::Position>> ways;
    for (int byte = 0; byte < 256; ++byte)
      if (const auto to = matcher.step(at, static_cast<std::uint8_t>(byte)); to != Matcher::kDead)
        ways.emplace_back(static_cast<std::uint8_t>(byte), to);
    if (matcher.complete(at) && (ways.empty() || random() % 2)) return text;
    // Ends of strings, objects and lists more often than chance, so that texts end.
    auto pick = ways[random() % ways.size()];
    for (const auto& way : ways)
      if ((way.first == '"' || way.first == '}' || way.first == ']') && random() % 4 == 0) pick = way;
    text += static_cast<char>(pick.first);
    at = pick.second;
  }
  return "";
}

TEST(JsonGrammar, AcceptsAndRefuses) {
  const struct {
    const char* schema;
    std::vector<const char*> valid, invalid;
  } cases[] = {
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]})",
       {R"({"a": 1})", R"({"a":-20, "b":"x\n\u00e9é"})", "{\n  \"a\": 0\n}"},
       {"{}", R"({"b": "x"})", R"({"a": 01})", R"({"a": 1.5})", R"({"b": "x", "a": 1})", R"({"a": 1,})",
        R"({"a": 1} x)"}},
      {R"({"properties": {"a": {"type": "null"}, "b": {"type": "boolean"}, "c": {"const": [1]}}})",
       {"{}", R"({"a": null})", R"({"b": true})", R"({"a": null, "c": [1]})", R"({"c":[1]})"},
       {R"({"a": null "b": true})", R"({,"b": true})", R"({"b": true, "a": null})"}},
      {R"({"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3})",
       {"[1]", "[1, -2.5]", "[0,0,0]"},
       {"[]", "[1,2,3,4]", "[1,]", "[,1]"}},
      {R"({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "boolean"}, "minItems": 2})",
       {R"(["a", true])", R"(["a", true, false])"},
       {R"(["a"])", R"([true])", "[]"}},
      {R"({"enum": ["red", 3, null]})", {R"("red")", "3", "null"}, {R"("re")", "33", ""}},
      {R"({"type": ["string", "null"], "maxLength": 2})", {"null", R"("")", R"("é\n")"}, {R"("abc")", "1"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})", {R"("ab")", R"("abc")"}, {R"("a")", R"("abcd")"}},
      {R"({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "boolean"}]})", {"7", "true"}, {"0", "-1", "null"}},
      {R"({"type": "integer", "minimum": 0})", {"0", "12"}, {"-1"}},
      {R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}}, "required": ["next"]}}})",
       {R"({"next": null})", R"({"next": {"next": null}})"},
       {R"({"next": {}})"}},
      {R"({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]})",
       {R"({"next": null})", R"({"next": {"next": {"next": null}}})"},
       {R"({"next": {}})", R"({"next": {"next": null})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"x": 1, "y": 2})"},
       {R"({"x": "1"})", R"({"x": 1,})"}},
      {"{}", {"1", R"([{"a": [null, "x"]}, 2.5])"}, {"", "nul"}},
  };
  for (const auto& c : cases) {
    const Json schema = parsed(c.schema);
    Matcher matcher(json_grammar(schema, "s"));
    for (const char* text : c.valid) EXPECT_TRUE(accepts(matcher, text)) << c.schema << "  " << text;
    for (const char* text : c.invalid) EXPECT_FALSE(accepts(matcher, text)) << c.schema << "  " << text;
  }
}

TEST(JsonGrammar, WhatItAllowsIsJson) {
  std::mt19937 random(1);
  Matcher any(any_object_grammar());
  Matcher named(json_grammar(parsed(R"({"type": "object", "properties": {"name": {"type": "string"}, "list":
      {"type": "array", "items": {"type": "number"}}, "more": {"type": "object"}}, "required": ["list"]})"),
                             "s"));
  int ended = 0;
  for (int i = 0; i < 300; ++i)
    for (Matcher* matcher : {&any, &named}) {
      const std::string text = any_text(*matcher, random);
      if (text.empty()) continue;
      ++ended;
      // A key may come twice where any may come: not our parser's, but JSON.
      EXPECT_TRUE(Json::accept(text)) << text;
      if (matcher == &named) EXPECT_TRUE(Json::parse(text).contains("list"));
    }
  EXPECT_GT(ended, 100);
}

TEST(JsonGrammar, RefusesWhatItCannotKeepTo) {
  for (const char* schema :
       {R"({"type": "string", "pattern": "a+"})", R"({"type": "number", "multipleOf": 2})",
        R"({"type": "integer", "minimum": 5})", R"({"type": "number", "exclusiveMinimum": 0})", R"({"not": {}})",
        R"({"type": "tuple"})", R"({"type": 3})", R"({"enum": []})", R"({"anyOf": []})",
        R"({"$ref": "http://example.com"})", R"({"$ref": "#/nothing"})", R"({"type": "array", "minItems": -1})",
        R"({"type": "array", "minItems": 100000})", R"({"type": "object", "required": ["x"]})", "3", "[]", "false",
        R"({"type": "array", "uniqueItems": true})", R"({"type": "string", "minLength": 3, "maxLength": 2})"})
    EXPECT_THROW(json_grammar(parsed(schema), "s"), ApiError) << schema;
  Json deep = {{"type", "integer"}};
  for (int i = 0; i < 60; ++i) deep = {{"type", "array"}, {"items", deep}};
  EXPECT_THROW(json_grammar(deep, "s"), ApiError);
  Json wide = {{"type", "string"}, {"maxLength", 1000}};
  for (int i = 0; i < 3; ++i) wide = {{"type", "array"}, {"items", wide}, {"maxItems", 1000}};
  EXPECT_NO_THROW(json_grammar(wide, "s"));
}

TEST(JsonGrammar, DepthIsBounded) {
  Matcher matcher(any_object_grammar());
  Matcher::Position at = matcher.start(), last = at;
  int depth = 0;
  for (; at != Matcher::kDead && depth < 1000; ++depth)
    for (const char c : std::string_view("{\"a\":"))
      if (at != Matcher::kDead) at = matcher.step(last = at, static_cast<std::uint8_t>(c));
  EXPECT_GT(depth, 8);
  EXPECT_LT(depth, 64);
  bool goes_on = false;  // with something less deep
  for (int byte = 0; byte < 256; ++byte)
    goes_on |= matcher.step(last, static_cast<std::uint8_t>(byte)) != Matcher::kDead;
  EXPECT_TRUE(goes_on);
}

}  // namespace
}  // namespace lowp::server
