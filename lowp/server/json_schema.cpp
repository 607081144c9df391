#include "lowp/server/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "lowp/server/api_error.h"
#include "lowp/server/fields.h"

namespace lowp::server {
namespace {

using State = Grammar::State;
using Rule = Grammar::Rule;

constexpr int kMostSchemaDepth = 32;
constexpr std::int64_t kMostRepeats = 1000;

// Keywords that say nothing about what is valid.
const std::set<std::string> kNotes = {"title",    "description", "default", "examples",    "$schema",
                                      "$id",      "$comment",    "$defs",   "definitions", "deprecated",
                                      "readOnly", "writeOnly",   "strict",  "name"};

class Compiler {
 public:
  explicit Compiler(const Json* root, std::string where) : root_(root), where_(std::move(where)) {}

  Grammar compile() {
    const Rule whole = root_ ? schema(*root_, where_, 0) : any_object();
    grammar_.set_start(whole);
    return std::move(grammar_);
  }

 private:
  [[noreturn]] void wrong(const std::string& path, const std::string& what) const {
    throw bad_request(fmt::format("{}: {}", path, what), where_);
  }

  // ---- pieces of JSON

  // Nothing, a space, or a new line with some indent.
  State space(State from) {
    return grammar_.call(from, cached(space_, [&] {
                           const Rule rule = grammar_.rule();
                           grammar_.add_empty(rule.begin, rule.end);
                           grammar_.add_bytes(rule.begin, ' ', ' ', rule.end);
                           State line = grammar_.bytes(rule.begin, '\n', '\n');
                           grammar_.add_empty(line, rule.end);
                           constexpr int kMostIndent = 16;
                           for (int i = 0; i < kMostIndent; ++i) {
                             line = grammar_.bytes(line, ' ', ' ');
                             grammar_.add_empty(line, rule.end);
                           }
                           return rule;
                         }));
  }

  // A character of a string: UTF-8 but control characters, quote and backslash, or an escape.
  Rule character() {
    if (character_.begin >= 0) return character_;
    Grammar& g = grammar_;
    character_ = g.rule();
    const auto [a, z] = character_;
    g.add_bytes(a, 0x20, 0x21, z);
    g.add_bytes(a, 0x23, 0x5B, z);
    g.add_bytes(a, 0x5D, 0x7F, z);
    const State last = g.add_state(), last_two = g.add_state();
    g.add_bytes(last, 0x80, 0xBF, z);
    g.add_bytes(last_two, 0x80, 0xBF, last);
    g.add_bytes(a, 0xC2, 0xDF, last);
    g.add_bytes(g.bytes(a, 0xE0, 0xE0), 0xA0, 0xBF, last);
    g.add_bytes(a, 0xE1, 0xEC, last_two);
    g.add_bytes(g.bytes(a, 0xED, 0xED), 0x80, 0x9F, last);
    g.add_bytes(a, 0xEE, 0xEF, last_two);
    g.add_bytes(g.bytes(a, 0xF0, 0xF0), 0x90, 0xBF, last_two);
    g.add_bytes(g.bytes(a, 0xF1, 0xF3), 0x80, 0xBF, last_two);
    g.add_bytes(g.bytes(a, 0xF4, 0xF4), 0x80, 0x8F, last_two);
    const State escape = g.bytes(a, '\\', '\\');
    for (const char c : std::string_view("\"\\/bfnrt"))
      g.add_bytes(escape, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c), z);
    // By its number, but for the halves of surrogate pairs.
    const auto hex = [&](State from, State to) {
      g.add_bytes(from, '0', '9', to);
      g.add_bytes(from, 'a', 'f', to);
      g.add_bytes(from, 'A', 'F', to);
    };
    const State code = g.text(escape, "u"), low = g.add_state(), third = g.add_state(), fourth = g.add_state();
    constexpr std::pair<std::uint8_t, std::uint8_t> kFirst[] = {
        {'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}};
    for (const auto& [from, to] : kFirst) hex(g.bytes(code, from, to), third);
    g.add_bytes(code, 'd', 'd', low);
    g.add_bytes(code, 'D', 'D', low);
    g.add_bytes(low, '0', '7', third);
    hex(third, fourth);
    hex(fourth, z);
    return character_;
  }

  Rule string(std::int64_t least, std::int64_t most) {
    const Rule rule = grammar_.rule();
    State at = grammar_.text(rule.begin, "\"");
    for (std::int64_t i = 0; i < least; ++i) at = grammar_.call(at, character());
    std::vector<State> ends = {at};
    if (most < 0) {
      grammar_.add_call(at, character(), at);
    } else {
      for (std::int64_t i = least; i < most; ++i) ends.push_back(at = grammar_.call(at, character()));
    }
    grammar_.add_empty(grammar_.text(grammar_.join(ends), "\""), rule.end);
    return rule;
  }
  Rule any_string() {
    return cached(any_string_, [&] { return string(0, -1); });
  }

  // Bounded in its digits, so that a model cannot go on for ever.
  Rule number(bool whole, bool may_be_negative, bool may_be_zero) {
    Grammar& g = grammar_;
    const Rule rule = g.rule();
    const State sign = g.add_state();
    g.add_empty(rule.begin, sign);
    if (may_be_negative) g.add_bytes(rule.begin, '-', '-', sign);
    std::vector<State> ends;
    State at = g.bytes(sign, '1', '9');
    ends.push_back(at);
    constexpr int kDigits = 15;
    for (int i = 1; i < kDigits; ++i) ends.push_back(at = g.bytes(at, '0', '9'));
    if (may_be_zero) ends.push_back(g.text(sign, "0"));
    const State integer = g.join(ends);
    g.add_empty(integer, rule.end);
    if (whole) return rule;
    at = g.text(integer, ".");
    for (int i = 0; i < kDigits; ++i) {
      at = g.bytes(at, '0', '9');
      g.add_empty(at, rule.end);
    }
    return rule;
  }

  Rule literal(const Json& value) {
    const Rule rule = grammar_.rule();
    grammar_.add_empty(grammar_.text(rule.begin, value.dump()), rule.end);
    return rule;
  }

  Rule any_value() {
    if (any_value_.begin >= 0) return any_value_;
    any_value_ = grammar_.rule();
    const Rule parts[] = {any_string(),    cached(any_number_, [&] { return number(false, true, true); }),
                          any_object(),    any_array(),
                          literal(true),   literal(false),
                          literal(nullptr)};
    for (const Rule& part : parts) grammar_.add_call(any_value_.begin, part, any_value_.end);
    return any_value_;
  }

  Rule any_object() {
    if (any_object_.begin >= 0) return any_object_;
    any_object_ = grammar_.rule();
    map_of(any_object_, any_value());
    return any_object_;
  }

  Rule any_array() {
    if (any_array_.begin >= 0) return any_array_;
    any_array_ = grammar_.rule();
    list_of(any_array_, {}, any_value(), 0, -1);
    return any_array_;
  }

  template <typename Make>
  Rule cached(Rule& rule, Make make) {
    if (rule.begin < 0) rule = make();
    return rule;
  }

  // {"any key": value, ...}
  void map_of(const Rule& rule, const Rule& value) {
    Grammar& g = grammar_;
    const State open = space(g.text(rule.begin, "{"));
    const State key = g.add_state(), after = g.add_state(), close = g.add_state();
    g.add_empty(open, key);
    g.add_empty(open, close);
    g.add_empty(g.call(space(g.text(g.call(key, any_string()), ":")), value), after);
    g.add_empty(space(g.text(after, ",")), key);
    g.add_empty(space(after), close);
    g.add_empty(g.text(close, "}"), rule.end);
  }

  // [first..., rest, rest, ...] with at least `least` and at most `most` items; most < 0: any number.
  void list_of(const Rule& rule, const std::vector<Rule>& first, std::optional<Rule> rest, std::int64_t least,
               std::int64_t most) {
    Grammar& g = grammar_;
    const State open = space(g.text(rule.begin, "["));
    const State close = g.add_state();
    g.add_empty(g.text(close, "]"), rule.end);
    if (least <= 0) g.add_empty(open, close);
    State after = -1;  // an item
    const auto item = [&](const Rule& what, std::int64_t number) {
      const State before = after < 0 ? open : space(g.text(after, ","));
      after = g.call(before, what);
      if (number >= least) g.add_empty(space(after), close);
    };
    std::int64_t count = 0;
    for (const Rule& what : first)
      if (most < 0 || count < most) item(what, ++count);
    if (!rest) return;
    for (const std::int64_t needed = std::max<std::int64_t>(least, 1); count < needed || (most >= 0 && count < most);) {
      if (most >= 0 && count >= most) return;
      item(*rest, ++count);
    }
    if (most < 0) g.add_call(space(g.text(after, ",")), *rest, after);
  }

  // ---- schemas

  std::int64_t count_of(const Json& schema, const char* key, std::int64_t fallback, const std::string& path) const {
    if (!schema.contains(key)) return fallback;
    return read_integer(schema[key], path + "." + key, 0, kMostRepeats);
  }

  void check_keywords(const Json& schema, const std::set<std::string>& known, const std::string& path) const {
    for (const auto& [key, value] : schema.items())
      if (!known.count(key) && !kNotes.count(key))
        wrong(path, fmt::format("the keyword {} cannot be kept to", quote(key)));
  }

  Rule alternatives(const Json& list, const std::string& path, int depth) {
    if (!list.is_array() || list.empty()) wrong(path, "expected a list of schemas");
    const Rule rule = grammar_.rule();
    for (std::size_t i = 0; i < list.size(); ++i)
      grammar_.add_call(rule.begin, schema(list[i], fmt::format("{}[{}]", path, i), depth + 1), rule.end);
    return rule;
  }

  const Json& referred(const std::string& reference, const std::string& path) const {
    if (reference == "#") return *root_;
    if (!reference.starts_with("#/")) wrong(path, "only references within the schema are supported");
    try {
      return root_->at(Json::json_pointer(reference.substr(1)));
    } catch (const Json::exception&) {
      wrong(path, fmt::format("{} does not exist", quote(reference)));
    }
  }

  Rule schema(const Json& s, const std::string& path, int depth) {
    if (depth > kMostSchemaDepth) wrong(where_, fmt::format("nested more than {} deep", kMostSchemaDepth));
    if (s.is_boolean()) {
      if (!s.get<bool>()) wrong(path, "nothing is valid");
      return any_value();
    }
    if (!s.is_object()) wrong(path, "expected a schema");
    // References are to the definitions around them: those of a tool are its own.
    struct Restore {
      const Json*& root;
      const Json* const before;
      ~Restore() { root = before; }
    } const restore{root_, root_};
    if (s.contains("$defs") || s.contains("definitions")) root_ = &s;
    if (s.contains("$ref")) {
      check_keywords(s, {"$ref"}, path);
      if (!s["$ref"].is_string()) wrong(path + ".$ref", "expected a text");
      const Json& target = referred(s["$ref"].get<std::string>(), path + ".$ref");
      if (const auto at = done_.find(&target); at != done_.end()) return at->second;
      const Rule rule = done_[&target] = grammar_.rule();
      const Rule body = schema(target, s["$ref"].get<std::string>(), depth + 1);
      grammar_.add_call(rule.begin, body, rule.end);
      return rule;
    }
    if (s.contains("const")) {
      check_keywords(s, {"const", "type"}, path);
      return literal(s["const"]);
    }
    if (s.contains("enum")) {
      check_keywords(s, {"enum", "type"}, path);
      if (!s["enum"].is_array() || s["enum"].empty()) wrong(path + ".enum", "expected a list of values");
      const Rule rule = grammar_.rule();
      for (const Json& value : s["enum"]) grammar_.add_empty(grammar_.text(rule.begin, value.dump()), rule.end);
      return rule;
    }
    for (const char* key : {"anyOf", "oneOf"})
      if (s.contains(key)) {
        check_keywords(s, {key}, path);
        return alternatives(s[key], path + "." + key, depth);
      }
    if (s.contains("allOf")) {
      check_keywords(s, {"allOf"}, path);
      if (!s["allOf"].is_array() || s["allOf"].size() != 1) wrong(path + ".allOf", "only of one schema");
      return schema(s["allOf"][0], path + ".allOf[0]", depth + 1);
    }
    if (s.contains("type") && s["type"].is_array()) {
      if (s["type"].empty()) wrong(path + ".type", "is empty");
      const Rule rule = grammar_.rule();
      for (const Json& type : s["type"]) {
        Json one = s;
        one["type"] = type;
        for (const auto& [key, belongs] : kBelongs)
          if (type != belongs) one.erase(key);
        grammar_.add_call(rule.begin, typed(one, path, depth), rule.end);
      }
      return rule;
    }
    return typed(s, path, depth);
  }

  static const std::map<std::string, std::string> kBelongs;

  Rule typed(const Json& s, const std::string& path, int depth) {
    std::string type;
    if (s.contains("type")) {
      if (!s["type"].is_string()) wrong(path + ".type", "expected a text");
      type = s["type"].get<std::string>();
    } else {
      for (const auto& [key, belongs] : kBelongs)
        if (s.contains(key)) type = belongs;
      if (type.empty()) {
        check_keywords(s, {}, path);
        return any_value();
      }
    }
    if (type == "object") return object(s, path, depth);
    if (type == "array") return array(s, path, depth);
    if (type == "string") {
      check_keywords(s, {"type", "minLength", "maxLength"}, path);
      const std::int64_t least = count_of(s, "minLength", 0, path), most = count_of(s, "maxLength", -1, path);
      if (most >= 0 && most < least) wrong(path, "maxLength is below minLength");
      return least == 0 && most < 0 ? any_string() : string(least, most);
    }
    if (type == "number" || type == "integer") {
      // Only bounds that the sign keeps: at least 0; of whole numbers also at least 1, or above 0.
      check_keywords(s, {"type", "minimum", "exclusiveMinimum"}, path);
      const bool whole = type == "integer", above_zero = s.contains("exclusiveMinimum");
      const Json bound = s.value(above_zero ? "exclusiveMinimum" : "minimum", Json(nullptr));
      const bool positive = above_zero ? bound == 0 : bound == 1;
      if (!bound.is_null() && !(positive ? whole : !above_zero && bound == 0))
        wrong(path, "the bound of a number cannot be kept to: only a minimum of 0, and of whole numbers of 1");
      return number(whole, bound.is_null(), !positive || bound.is_null());
    }
    check_keywords(s, {"type"}, path);
    if (type == "null") return literal(nullptr);
    if (type == "boolean") {
      const Rule rule = grammar_.rule();
      for (const bool value : {true, false}) grammar_.add_call(rule.begin, literal(value), rule.end);
      return rule;
    }
    wrong(path + ".type", fmt::format("{} is no type", quote(type)));
  }

  Rule array(const Json& s, const std::string& path, int depth) {
    check_keywords(s, {"type", "items", "prefixItems", "minItems", "maxItems"}, path);
    const std::int64_t least = count_of(s, "minItems", 0, path), most = count_of(s, "maxItems", -1, path);
    if (most >= 0 && most < least) wrong(path, "maxItems is below minItems");
    const Rule rule = grammar_.rule();
    std::vector<Rule> first;
    if (s.contains("prefixItems")) {
      if (!s["prefixItems"].is_array()) wrong(path + ".prefixItems", "expected a list of schemas");
      for (std::size_t i = 0; i < s["prefixItems"].size(); ++i)
        first.push_back(schema(s["prefixItems"][i], fmt::format("{}.prefixItems[{}]", path, i), depth + 1));
    }
    std::optional<Rule> rest;
    if (most != 0 && !(s.contains("items") && s["items"] == false))
      rest = s.contains("items") ? schema(s["items"], path + ".items", depth + 1) : any_value();
    if (!rest && least > static_cast<std::int64_t>(first.size()))
      wrong(path, "minItems asks for more than there can be");
    list_of(rule, first, rest, least, most);
    return rule;
  }

  Rule object(const Json& s, const std::string& path, int depth) {
    check_keywords(s, {"type", "properties", "required", "additionalProperties"}, path);
    const bool named = s.contains("properties") && !(s["properties"].is_object() && s["properties"].empty());
    if (!named) {
      const Json more = s.contains("additionalProperties") ? s["additionalProperties"] : Json(true);
      if (s.contains("required") && !s["required"].empty()) wrong(path + ".required", "names members without a schema");
      const Rule rule = grammar_.rule();
      if (more == false)
        grammar_.add_empty(grammar_.text(rule.begin, "{}"), rule.end);
      else
        map_of(rule, schema(more, path + ".additionalProperties", depth + 1));
      return rule;
    }
    const Json& properties = s["properties"];
    if (!properties.is_object()) wrong(path + ".properties", "expected an object of schemas");
    std::set<std::string> required;
    if (s.contains("required")) {
      if (!s["required"].is_array()) wrong(path + ".required", "expected a list of names");
      for (const Json& name : s["required"]) {
        if (!name.is_string() || !properties.contains(name.get<std::string>()))
          wrong(path + ".required", "names members without a schema");
        required.insert(name.get<std::string>());
      }
    }
    // Member after member; `none` is reached while there is none yet, `some` after one.
    Grammar& g = grammar_;
    const Rule rule = g.rule();
    State none = space(g.text(rule.begin, "{")), some = -1;
    for (const auto& [name, value] : properties.items()) {
      const Rule member = g.rule();
      const State colon = space(g.text(member.begin, Json(name).dump() + ":"));
      g.add_call(colon, schema(value, fmt::format("{}.properties.{}", path, name), depth + 1), member.end);
      const State taken = g.add_state();
      if (none >= 0) g.add_call(none, member, taken);
      if (some >= 0) {
        g.add_call(space(g.text(some, ",")), member, taken);
        if (!required.count(name)) g.add_empty(some, taken);
      }
      some = taken;
      if (required.count(name)) none = -1;
    }
    const State close = g.add_state();
    if (none >= 0) g.add_empty(none, close);
    g.add_empty(space(some), close);
    g.add_empty(g.text(close, "}"), rule.end);
    return rule;
  }

  const Json* root_;
  const std::string where_;
  Grammar grammar_;
  Rule space_, character_, any_string_, any_number_, any_value_, any_object_, any_array_;
  std::map<const Json*, Rule> done_;  // schemas that are referred to
};

const std::map<std::string, std::string> Compiler::kBelongs = {
    {"properties", "object"}, {"required", "object"},   {"additionalProperties", "object"},
    {"items", "array"},       {"prefixItems", "array"}, {"minItems", "array"},
    {"maxItems", "array"},    {"minLength", "string"},  {"maxLength", "string"},
};

}  // namespace

Grammar json_grammar(const Json& schema, const std::string& where) { return Compiler(&schema, where).compile(); }

Grammar any_object_grammar() { return Compiler(nullptr, "response_format").compile(); }

}  // namespace lowp::server
