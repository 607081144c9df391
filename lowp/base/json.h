// JSON values and a strict parser for foreign bytes. The JSON library is named here and nowhere else.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lowp {

/// An ordered JSON value: key order survives reading and writing. Look-up of a key is a linear search: iterate over
/// objects with many keys.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  int depth = 64;  // nesting of arrays and objects
  std::size_t bytes = std::size_t{256} << 20;
};

/// Parses UTF-8 JSON text. `where` names the source in messages. Throws Error(bad_input) on malformed text, duplicate
/// keys, nesting beyond limits.depth or text beyond limits.bytes. Integers that fit are kept exactly as (u)int64.
Json parse_json(std::string_view text, const std::string& where, JsonLimits limits = {});

/// Reads and parses a file; same errors, plus Error(io).
Json read_json(const std::string& path, JsonLimits limits = {});

/// A foreign string for a message: in single quotes, control characters as '?', cut after 200 bytes.
std::string quote(std::string_view text);

}  // namespace lowp
