// What the functions, filters, tests and methods of templates share. The first three read an argument, which may be
// missing, and throw Error(bad_input) for one of another type.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/text/jinja/renderer.h"

namespace lowp::text::jinja {

/// A filter or a method: what it is applied to, and its arguments.
using Method = Value (*)(Renderer& r, const Value& self, const Arguments& a);

std::int64_t integer_or(const Value* value, std::int64_t fallback);
bool flag_or(const Value* value, bool fallback);
/// `what` is asking, for the message.
const std::string& string_of(const Value* value, const char* what);

// Of ASCII letters only.
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);

/// The first `most` (all, if negative) occurrences; an empty `from` stands before every character. Throws
/// Error(bad_input) beyond `room` bytes.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t most,
                        std::size_t room);

/// [key, value] of each entry.
List pairs(const Dict& dict);

}  // namespace lowp::text::jinja
