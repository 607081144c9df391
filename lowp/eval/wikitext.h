// Documents of a raw WikiText file, as lm-eval's "wikitext" task prepares them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lowp::eval {

/// Splits at title lines ("= Title =" with one equals sign); each document begins with its title and, but for the last,
/// lacks the line feed at its end.
std::vector<std::string> wikitext_documents(std::string_view text);

/// Undoes the tokenisation of WikiText: " @-@ " becomes "-", spaces around punctuation and inside brackets go.
std::string wikitext_detokenize(std::string text);

/// Pieces between runs of Unicode white space, empty ones at the ends included: Python's len(re.split(r"\s+", text)).
std::int64_t word_count(std::string_view text);

}  // namespace lowp::eval
