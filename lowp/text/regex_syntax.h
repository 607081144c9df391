// Regular expressions as tokenizer.json spells them, in Oniguruma's Ruby syntax, turned into what PCRE2 takes.
#pragma once

#include <string>
#include <string_view>

namespace lowp::text {

/// The expression for PCRE2 (UTF, UCP, MULTILINE) that matches what `pattern` does in Oniguruma. The two agree on most,
/// but not on \s, \w, scripts and a few more, which are spelled out; what has no equal is an Error(unsupported) that
/// names `where` and the position, never taken for something else.
std::string translate_regex(std::string_view pattern, const std::string& where);

/// Unicode's White_Space, to stand within brackets.
std::string_view white_space_class();

/// The expression that matches `text` itself.
std::string quote_regex(std::string_view text);

}  // namespace lowp::text
