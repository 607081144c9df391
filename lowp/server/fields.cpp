#include "lowp/server/fields.h"

#include <fmt/format.h>

#include <cmath>

#include "lowp/server/api_error.h"

namespace lowp::server {
namespace {

[[noreturn]] void wrong(const std::string& path, const std::string& expected, const Json& found) {
  std::string text =
      found.is_structured() ? found.type_name() : found.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 40) + "...";
  throw bad_request(fmt::format("{}: expected {}, found {}", path, expected, quote(text)), path);
}

}  // namespace

Fields::Fields(const Json& value, std::string where) : object_(&value), where_(std::move(where)) {
  if (!value.is_object()) wrong(where_.empty() ? "the body" : where_, "an object", value);
}

const Json* Fields::find(std::string_view key) const {
  const auto at = object_->find(std::string(key));
  return at == object_->end() || at->is_null() ? nullptr : &*at;
}

std::optional<bool> Fields::flag(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) wrong(path(key), "true or false", *value);
  return value->get<bool>();
}

std::optional<std::string> Fields::string(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) wrong(path(key), "a string", *value);
  return value->get<std::string>();
}

std::optional<std::int64_t> Fields::integer(std::string_view key, std::int64_t low, std::int64_t high) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  return read_integer(*value, path(key), low, high);
}

std::optional<double> Fields::number(std::string_view key, double low, double high) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  const double x = value->is_number() ? value->get<double>() : NAN;
  if (!(x >= low && x <= high)) wrong(path(key), fmt::format("a number from {} to {}", low, high), *value);
  return x;
}

const Json* Fields::array(std::string_view key) const {
  const Json* value = find(key);
  if (value && !value->is_array()) wrong(path(key), "a list", *value);
  return value;
}

std::optional<Fields> Fields::object(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  return Fields(*value, path(key));
}

std::int64_t read_integer(const Json& value, const std::string& path, std::int64_t low, std::int64_t high) {
  const auto expected = [&] { return fmt::format("a whole number from {} to {}", low, high); };
  if (value.is_number_unsigned()) {
    const auto n = value.get<std::uint64_t>();
    if (n > static_cast<std::uint64_t>(INT64_MAX)) wrong(path, expected(), value);
  } else if (value.is_number_float()) {
    const double x = value.get<double>();
    if (x != std::floor(x) || !(std::fabs(x) < 9e15)) wrong(path, expected(), value);
  } else if (!value.is_number_integer()) {
    wrong(path, expected(), value);
  }
  const auto n = value.get<std::int64_t>();
  if (n < low || n > high) wrong(path, expected(), value);
  return n;
}

}  // namespace lowp::server
