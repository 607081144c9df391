#include "lowp/text/regex.h"

#include <gtest/gtest.h>

#include "lowp/base/error.h"
#include "lowp/text/regex_syntax.h"

namespace lowp::text {
namespace {

// All matches, between bars.
std::string matches(std::string_view pattern, std::string_view text) {
  const Regex regex(translate_regex(pattern, "x"), "x");
  Regex::Scratch scratch;
  Regex::Match match;
  std::string found = "|";
  for (std::size_t at = 0; at < text.size() && regex.find(text, at, scratch, match); at = match.end)
    found.append(text, match.begin, match.end - match.begin).append("|");
  return found;
}

TEST(RegexSyntax, SpellsOutWhatDiffers) {
  EXPECT_EQ(matches(R"(\s+)", "a \t\u00a0\u3000b\u180ec"), "| \t\u00a0\u3000|") << "U+180E is no white space";
  EXPECT_EQ(matches(R"([^\s\d]+)", "ab 12cd\u180e"), "|ab|cd\u180e|");
  EXPECT_EQ(matches(R"([\S])", "a b"), "|a|b|");
  EXPECT_EQ(matches(R"(\w+)", "e\u0301a\u203fb\u00b2-"), "|e\u0301a\u203fb\u00b2|");
  EXPECT_EQ(matches(R"(\p{Han}+)", "\u4e2d\u6587\u3002\u3042"), "|\u4e2d\u6587|") << "scripts, not script extensions";
  EXPECT_EQ(matches(R"(\p{^L}+|\P{^N}+)", "ab12 "), "|12 |");
  EXPECT_EQ(matches(R"([\u4e00-\u9fa5\x41])", "A\u4e2db"), "|A|\u4e2d|");
  EXPECT_EQ(matches(R"((?i:'s)|\v)", "'S'\u017f\vs"), "|'S|'\u017f|\v|");
  EXPECT_EQ(matches(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])", "a-]\\"), "|-|]|\\|");
  EXPECT_EQ(matches("a{2}|b{x|{", "aaab{x{,"), "|aa|b{x|{|") << "a brace alone is a character";
}

struct Refused {
  const char* name;
  const char* pattern;
};
class RegexSyntaxRefuses : public testing::TestWithParam<Refused> {};

TEST_P(RegexSyntaxRefuses, Pattern) {
  try {
    Regex(translate_regex(GetParam().pattern, "pattern"), "pattern");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_TRUE(std::string(error.what()).starts_with("pattern: ")) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(All, RegexSyntaxRefuses,
                         testing::ValuesIn(std::vector<Refused>{
                             {"intersection", R"([\w&&\d])"},
                             {"nested_class", "[a[b]]"},
                             {"posix_class", "[[:alpha:]]"},
                             {"open_class", "[a"},
                             {"empty_class", "[]a]"},
                             {"range_from_set", R"([\s-a])"},
                             {"range_to_set", R"([a-\s])"},
                             {"hex_digit", R"(\h)"},
                             {"boundary", R"(\bx)"},
                             {"back_reference", R"((a)\1)"},
                             {"quoting", R"(\Qa\E)"},
                             {"end_of_pattern", "\\"},
                             {"named_group", "(?<n>a)"},
                             {"multi_line", "(?m:.)"},
                             {"comment", "(?#a)"},
                             {"option_inside", "a(?i)b"},
                             {"verb", "(*UTF)a"},
                             {"possessive_braces", "a{1,2}+"},
                             {"lazy_braces", "a{2}?"},
                             {"no_lower_bound", "a{,2}"},
                             {"doubled", "a+*"},
                             {"byte_code", R"(\xff)"},
                             {"short_code", R"(\u00e)"},
                             {"binary_property", R"(\p{Emoji})"},
                             {"no_such_property", R"(\p{Nope})"},
                             {"open_property", R"(\p{L)"},
                             {"one_letter", R"(\pL)"},
                             {"open_group", "(?:a"},
                             {"nothing_to_repeat", "*a"},
                             {"lookbehind", "(?<=a+)b"},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(RegexSyntax, QuotesEverything) {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "\u00e9\u4e2d";
  const Regex regex(quote_regex(all), "x");
  Regex::Scratch scratch;
  Regex::Match match;
  ASSERT_TRUE(regex.find(all, 0, scratch, match));
  EXPECT_EQ(match.end, all.size());
}

TEST(Regex, BoundsTheEffort) {
  EXPECT_THROW(matches("(?:a+)+[bc]", std::string(5000, 'a')), Error);
  EXPECT_THROW(matches("(?:a|ab|b)*[cd]", std::string(1'000'000, 'a')), Error);
}

TEST(Regex, GoesBackOverLongRuns) {
  const std::string spaces(1'000'000, ' ');
  EXPECT_EQ(matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", spaces + "x").size(), 1'000'000u - 1 + 2 + 2);
}

}  // namespace
}  // namespace lowp::text
