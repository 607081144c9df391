// Reading the fields of a request's JSON: each with its type and its bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lowp/base/json.h"

namespace lowp::server {

/// A JSON object that came with a request. A value null counts as absent; fields that nobody asks for are ignored.
/// Errors are ApiError 400 and name the field.
class Fields {
 public:
  /// Throws unless `value` is an object; `where` is the path to it, "" for the body itself.
  Fields(const Json& value, std::string where);

  /// The path to a field below this object, for messages.
  std::string path(std::string_view key) const {
    return where_.empty() ? std::string(key) : where_ + "." + std::string(key);
  }
  /// nullptr if absent.
  const Json* find(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string> string(std::string_view key) const;
  /// Whole numbers may be written as 3 or 3.0.
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  /// Finite numbers only.
  std::optional<double> number(std::string_view key, double low, double high) const;
  const Json* array(std::string_view key) const;
  std::optional<Fields> object(std::string_view key) const;

 private:
  const Json* object_;
  std::string where_;
};

/// A whole number within bounds; throws ApiError 400 naming `path`.
std::int64_t read_integer(const Json& value, const std::string& path, std::int64_t low, std::int64_t high);

}  // namespace lowp::server
