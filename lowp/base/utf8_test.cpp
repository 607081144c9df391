#include "lowp/base/utf8.h"

#include <gtest/gtest.h>

namespace lowp {
namespace {

std::string lossy(std::string_view bytes) {
  std::string text;
  if (append_lossy(text, bytes) > 0) text += kReplacement;
  return text;
}

TEST(Utf8, EveryCodePointIsWrittenAndReadBack) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Step step = next_utf8(text, 0);
    ASSERT_TRUE(step.state == Utf8::valid && step.length == text.size() && step.code == code) << std::uint32_t{code};
    for (std::size_t cut = 1; cut < text.size(); ++cut)
      ASSERT_EQ(next_utf8(text.substr(0, cut), 0).state, Utf8::incomplete) << std::uint32_t{code};
  }
}

TEST(Utf8, NamesTheFirstInvalidByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("plain, \xC3\xA9, \xE2\x82\xAC, \xF0\x9F\x98\x80"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("0123456789\xFF"), 10u);
  EXPECT_EQ(find_invalid_utf8("ab\xC0\xAF"), 2u) << "overlong";
  EXPECT_EQ(find_invalid_utf8("ab\xE0\x80\x80"), 2u) << "overlong";
  EXPECT_EQ(find_invalid_utf8("ab\xED\xA0\x80"), 2u) << "surrogate";
  EXPECT_EQ(find_invalid_utf8("ab\xF4\x90\x80\x80"), 2u) << "above U+10FFFF";
  EXPECT_EQ(find_invalid_utf8("ab\xE2\x82"), 2u) << "cut off";
  EXPECT_EQ(find_invalid_utf8("\x80"), 0u);
}

// As Unicode recommends and Rust and Python do: one U+FFFD for each maximal part of a sequence.
TEST(Utf8, ReplacesWhatIsInvalid) {
  EXPECT_EQ(lossy("a\xF0\x9F"
                  "b"),
            "a\uFFFDb");
  EXPECT_EQ(lossy("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(lossy("\xE2\x28\xA1"), "\uFFFD(\uFFFD");
  EXPECT_EQ(lossy("12345678\xE2\x82"), "12345678\uFFFD");
}

TEST(Utf8, LeavesOutWhatMoreBytesCouldComplete) {
  std::string text;
  EXPECT_EQ(append_lossy(text, "a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(text, "a");
}

}  // namespace
}  // namespace lowp
