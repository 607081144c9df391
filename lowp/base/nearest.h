// "Did you mean": the closest of a list of names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lowp {

/// The name with the smallest Levenshtein distance to `word`, or "" if none is within a third of the word's length + 2.
std::string nearest_name(std::string_view word, std::span<const std::string> names);

/// " (did you mean 'X'?)" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> names);

}  // namespace lowp
