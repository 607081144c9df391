#include "lowp/eval/wikitext.h"

#include <gtest/gtest.h>

namespace lowp::eval {
namespace {

TEST(Wikitext, SplitsAtTitles) {
  const auto documents = wikitext_documents(" \n = One = \n \n text \n = = Section = = \n more\n = Two = \n end\n");
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0], " = One = \n \n text \n = = Section = = \n more");
  EXPECT_EQ(documents[1], " = Two = \n end\n");
}

TEST(Wikitext, Detokenizes) {
  // What the task's own expressions give: the apostrophes of "dogs'" and "it 's" count as a pair of quotes.
  EXPECT_EQ(wikitext_detokenize("the dogs ' 3 @,@ 000 @.@ 5 well @-@ known ( a b ) [ c ] \" quoted \" ; yes , it 's : "
                                "so . \n = = Title = = \n"),
            "the dogs'3,000.5 well-known (a b) [c] \"quoted\"; yes, it's: so.\n== Title ==\n");
}

TEST(Wikitext, CountsWordsAsPythonSplits) {
  EXPECT_EQ(word_count(""), 1);
  EXPECT_EQ(word_count("a b  c"), 3);
  EXPECT_EQ(word_count(" a "), 3);
  EXPECT_EQ(word_count("a\u00A0b\u3000c"), 3);
}

}  // namespace
}  // namespace lowp::eval
