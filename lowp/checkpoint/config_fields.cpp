#include "lowp/checkpoint/config_fields.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/formats/block.h"

namespace lowp::checkpoint {

const Json* value_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool is_empty(const Json* value) { return !value || (value->is_object() && value->empty()); }

void check_keys(const Json& object, std::span<const std::string_view> known, const std::string& where) {
  if (!object.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, quote(object.dump()));
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail(ErrorCode::bad_input, "{}: unknown key {}; the schema has {}", where, quote(key), fmt::join(known, ", "));
}

void wrong(const std::string& where, const char* key, const char* expected, const Json& found) {
  fail(ErrorCode::bad_input, "{}: {}: expected {}, found {}", where, key, expected, quote(found.dump()));
}

std::string text_or(const Json& object, const char* key, std::string fallback, const std::string& where) {
  const Json* value = value_of(object, key);
  if (!value) return fallback;
  if (!value->is_string()) wrong(where, key, "a string", *value);
  return value->get<std::string>();
}

int int_or(const Json& object, const char* key, int fallback, const std::string& where) {
  const Json* value = value_of(object, key);
  if (!value) return fallback;
  const bool fits = value->is_number_integer() && *value >= -1 && *value <= formats::kMaxGroup;
  if (!fits) wrong(where, key, "a small integer", *value);
  return value->get<int>();
}

bool bool_or(const Json& object, const char* key, bool fallback, const std::string& where) {
  const Json* value = value_of(object, key);
  if (!value) return fallback;
  if (!value->is_boolean()) wrong(where, key, "true or false", *value);
  return value->get<bool>();
}

std::vector<std::string> strings(const Json& object, const char* key, const std::string& where) {
  const Json* value = value_of(object, key);
  if (!value) return {};
  const auto is_text = [](const Json& item) { return item.is_string(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_text))
    wrong(where, key, "a list of strings", *value);
  return value->get<std::vector<std::string>>();
}

}  // namespace lowp::checkpoint
