// Counts and ids in JSON.
#pragma once

#include <cstdint>
#include <optional>

#include "lowp/base/json.h"

namespace lowp {

/// The integer from 0 on that a value holds, or nothing. A parser makes unsigned numbers, C++ code mostly signed ones.
inline std::optional<std::uint64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0) return std::nullopt;
  return static_cast<std::uint64_t>(value.get<std::int64_t>());
}

}  // namespace lowp
