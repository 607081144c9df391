#include "lowp/text/fields.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/whole_number.h"

namespace lowp::text {
namespace {

[[noreturn]] void fail_kind(const std::string& where, std::string_view expected, const Json& found) {
  fail(ErrorCode::bad_input, "{}: expected {}, found {}", where, expected,
       found.is_primitive() ? quote(found.dump(-1, ' ', false, Json::error_handler_t::replace)) : found.type_name());
}

}  // namespace

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail_kind(where_, "an object", object);
}

const Json* Fields::find(std::string_view key) {
  asked_.emplace_back(key);
  const auto at = object_.find(asked_.back());
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

const Json& Fields::required(std::string_view key) {
  if (const Json* value = find(key)) return *value;
  fail(ErrorCode::bad_input, "{} is missing", path(key));
}

const Json& Fields::array(std::string_view key) {
  const Json& value = required(key);
  if (!value.is_array()) fail_kind(path(key), "an array", value);
  return value;
}

const Json& Fields::object(std::string_view key) {
  const Json& value = required(key);
  if (!value.is_object()) fail_kind(path(key), "an object", value);
  return value;
}

bool Fields::flag(std::string_view key) {
  const Json& value = required(key);
  if (!value.is_boolean()) fail_kind(path(key), "true or false", value);
  return value.get<bool>();
}

bool Fields::flag(std::string_view key, bool fallback) { return find(key) ? flag(key) : fallback; }

std::string Fields::string(std::string_view key) {
  const Json& value = required(key);
  if (!value.is_string()) fail_kind(path(key), "a string", value);
  return value.get<std::string>();
}

std::int32_t Fields::token_id(std::string_view key) { return read_token_id(required(key), path(key)); }

void Fields::done() const {
  for (const auto& [key, value] : object_.items())
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end())
      fail(ErrorCode::unsupported, "{}: lowp does not know the field {}", where_, quote(key));
}

std::int32_t read_token_id(const Json& value, const std::string& where) {
  const auto id = whole_number(value);
  if (!id || *id > std::uint64_t{kLargestId})
    fail_kind(where, fmt::format("a token id from 0 to {}", kLargestId), value);
  return static_cast<std::int32_t>(*id);
}

}  // namespace lowp::text
