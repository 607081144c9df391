// Fields of a foreign quantization_config: looked up, checked, with an error that names the place.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::checkpoint {

/// The value of a key; nullptr if it is absent or null: most schemas do not tell these apart.
const Json* value_of(const Json& object, const char* key);

/// Whether a value is absent, null or {}.
bool is_empty(const Json* value);

/// Throws Error(bad_input): "WHERE: KEY: expected EXPECTED, found FOUND".
[[noreturn]] void wrong(const std::string& where, const char* key, const char* expected, const Json& found);

/// Throws Error(bad_input) if this is not an object, or has a key that the schema does not know.
void check_keys(const Json& object, std::span<const std::string_view> known, const std::string& where);

/// The value, or the fallback where there is none. Throw Error(bad_input) for a value of another type; integers must be
/// in [-1, formats::kMaxGroup].
std::string text_or(const Json& object, const char* key, std::string fallback, const std::string& where);
int int_or(const Json& object, const char* key, int fallback, const std::string& where);
bool bool_or(const Json& object, const char* key, bool fallback, const std::string& where);

/// A list of strings; empty if there is none.
std::vector<std::string> strings(const Json& object, const char* key, const std::string& where);

}  // namespace lowp::checkpoint
