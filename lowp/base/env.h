// Every LOWP_* environment variable: name, meaning, value. The only place that reads the environment.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lowp::env {

struct Variable {
  std::string_view name;
  std::string_view fallback;  // the value when unset, in words
  std::string_view meaning;
};

/// The table printed by `lowp env`.
std::span<const Variable> variables();

/// The value of a variable of the table (or of a foreign one such as HF_HOME); empty if unset.
std::string get(std::string_view name);

}  // namespace lowp::env
