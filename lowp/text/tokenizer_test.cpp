#include "lowp/text/tokenizer.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "lowp/text/stream_decoder.h"
#include "lowp/text/tokenizer_testing.h"
#include "tests/temp_dir.h"

namespace lowp::text {
namespace {

using Ids = std::vector<std::int32_t>;

// `options`: the flags that are set.
Json added(int id, const char* content, const std::vector<std::string>& options = {}) {
  Json token = {{"id", id}, {"content", content}};
  for (const char* option : {"single_word", "lstrip", "rstrip", "normalized", "special"})
    token[option] = std::find(options.begin(), options.end(), option) != options.end();
  return token;
}

// The sample with these added tokens, which have the ids 259, 260, ...
Tokenizer with_added(const std::vector<std::pair<const char*, std::vector<std::string>>>& tokens) {
  Json json = sample_tokenizer();
  json["added_tokens"] = Json::array({added(259, "<s>", {"special"})});
  for (const auto& [content, options] : tokens)
    json["added_tokens"].push_back(added(259 + static_cast<int>(json["added_tokens"].size()), content, options));
  return make(json);
}

TEST(Tokenizer, MergesInOrderOfRank) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  EXPECT_EQ(tokenizer.encode("the the"), (Ids{257, 258}));
  EXPECT_EQ(tokenizer.encode("thhe"), (Ids{'t', 'h', 256}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode(std::string_view("\0", 1)), Ids{0});
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  EXPECT_EQ(tokenizer.vocab_size(), 260u);
  EXPECT_EQ(tokenizer.id("\u0120the"), 258);
  EXPECT_EQ(tokenizer.id("nothing"), std::nullopt);
  EXPECT_EQ(*tokenizer.token(258), "\u0120the");
  EXPECT_EQ(tokenizer.bytes(258), " the");
  EXPECT_EQ(tokenizer.token(260), nullptr);
  EXPECT_EQ(tokenizer.token(-1), nullptr);
  EXPECT_TRUE(tokenizer.is_special(259));
  EXPECT_FALSE(tokenizer.is_special(258));
}

TEST(Tokenizer, TakesJsonMadeInCode) {  // whose numbers are signed
  Json json = sample_tokenizer();
  json["post_processor"]["special_tokens"]["<s>"]["ids"] = Json::array({259});
  EXPECT_EQ(Tokenizer::from_parsed(json, "sample").encode("he", true), (Ids{259, 256}));
}

TEST(Tokenizer, PutsSpecialTokensAroundIfAsked) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("he", true), (Ids{259, 256}));
  EXPECT_EQ(tokenizer.encode("", true), Ids{259});
  EXPECT_EQ(tokenizer.encode("<s>he"), (Ids{259, 256}));
  EXPECT_TRUE(tokenizer.suffix().empty());
}

TEST(Tokenizer, TakesAWholeWordFirstIfAsked) {
  Json json = sample_tokenizer();
  json["model"]["vocab"]["hey"] = 300;  // no merge makes it
  EXPECT_EQ(make(json).encode("hey"), (Ids{256, 'y'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(make(json).encode("hey"), Ids{300});
  EXPECT_EQ(make(json).token(299), nullptr) << "a gap";
}

TEST(Tokenizer, PutsASpaceFirstIfAsked) {
  Json json = sample_tokenizer();
  json["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_EQ(make(json).encode("the"), Ids{258});
  EXPECT_EQ(make(json).encode(" the"), Ids{258});
  EXPECT_EQ(make(json).encode("<s>the"), (Ids{259, 258}));
}

TEST(AddedTokens, TheLongestWins) {
  const Tokenizer tokenizer = with_added({{"ab", {}}, {"abcd", {}}, {"bc", {}}});
  EXPECT_EQ(tokenizer.encode("abcd"), Ids{261});
  EXPECT_EQ(tokenizer.encode("abce"), (Ids{260, 'c', 'e'}));
  EXPECT_EQ(tokenizer.encode("xbcab"), (Ids{'x', 262, 260}));
}

TEST(AddedTokens, TakeWhiteSpaceAround) {
  const Tokenizer tokenizer = with_added({{"[L]", {"lstrip"}}, {"[R]", {"rstrip"}}});
  EXPECT_EQ(tokenizer.encode("a \t\u3000[L] b"), (Ids{'a', 260, ' ', 'b'}));
  EXPECT_EQ(tokenizer.encode("a [R] \n b"), (Ids{'a', ' ', 261, 'b'}));
  EXPECT_EQ(tokenizer.encode("[R] [L]"), (Ids{261, 260}));
}

TEST(AddedTokens, StandAloneIfAsked) {
  const Tokenizer tokenizer = with_added({{"xx", {"single_word"}}, {"-y", {"single_word"}}});
  EXPECT_EQ(tokenizer.encode("xx (xx)"), (Ids{260, ' ', '(', 260, ')'}));
  EXPECT_EQ(tokenizer.encode("axx xx_"), (Ids{'a', 'x', 'x', ' ', 'x', 'x', '_'}));
  EXPECT_EQ(tokenizer.encode("\u4e2dxx"), (Ids{0xE4, 0xB8, 0xAD, 'x', 'x'}));
  EXPECT_EQ(tokenizer.encode("-y-y"), (Ids{261, '-', 'y'})) << "the second comes after a letter";
}

TEST(AddedTokens, MayHaveAnyContent) {
  const Tokenizer tokenizer = with_added({{"caf\u00e9", {}}, {"<\uff5cbegin\u2581\uff5c>", {}}, {"\n\n", {}}});
  const std::string text = "caf\u00e9<\uff5cbegin\u2581\uff5c>\n\n";
  EXPECT_EQ(tokenizer.encode(text), (Ids{260, 261, 262}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(AddedTokens, AreFoundInTheirNormalForm) {
  Json json = sample_tokenizer();
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"].push_back(added(260, "e\u0301", {"normalized"}));
  json["added_tokens"].push_back(added(261, "a\u0301"));
  EXPECT_EQ(make(json).encode("\u00e9 e\u0301 a\u0301 \u00e1"), (Ids{260, ' ', 260, ' ', 261, ' ', 0xC3, 0xA1}));
}

TEST(Normalizer, ComposesAndOrders) {
  Json json = sample_tokenizer();
  json["normalizer"] = parse_json(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})", "x");
  const Tokenizer tokenizer = make(json);
  const auto normal = [&](std::string_view text) { return tokenizer.decode(tokenizer.encode(text)); };
  EXPECT_EQ(normal("e\u0301 A\u030a \u1100\u1161\u11a8"), "\u00e9 \u00c5 \uac01");
  EXPECT_EQ(normal("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(normal("\u0344"), "\u0308\u0301") << "excluded from composition";
  EXPECT_EQ(normal("\u212b"), "\u00c5");
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += "\u0301\u0323";
  EXPECT_EQ(normal(marks).substr(0, 7), "\u1ea1\u0323\u0323") << "in order, and not in quadratic time";
}

TEST(Decode, SkipsSpecialTokens) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  const Ids ids = {259, 257, 259};
  EXPECT_EQ(tokenizer.decode(ids), "<s>the<s>");
  EXPECT_EQ(tokenizer.decode(ids, true), "the");
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 0x82}), "\uFFFD");
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 259, 0x82}, true), "\uFFFD") << "still cut off";
  for (const std::int32_t id : {-1, 260, 1 << 30}) EXPECT_THROW(tokenizer.decode(Ids{id}), Error);
}

TEST(StreamDecoder, GivesWholeCharacters) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> parts;
  for (const int id : Ids{'a', 0xE2, 0x82, 0xAC, 258, 0xF0, 0x9F, 'b', 0xFF, 0xC3}) parts.push_back(decoder.push(id));
  parts.push_back(decoder.flush());
  parts.push_back(decoder.flush());
  EXPECT_EQ(parts,
            (std::vector<std::string>{"a", "", "", "\u20ac", " the", "", "", "\uFFFDb", "\uFFFD", "", "\uFFFD", ""}));
}

TEST(StreamDecoder, GivesWhatDecodeGives) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  std::uint32_t random = 1;
  for (int run = 0; run < 2000; ++run) {
    Ids ids;
    for (int i = 0; i < 12; ++i) {
      random = random * 1664525 + 1013904223;
      // Often bytes that begin or continue a character.
      ids.push_back(static_cast<int>((random >> 8) % 3 ? 0x80 + (random >> 16) % 0x80 : (random >> 16) % 260));
    }
    StreamDecoder decoder(tokenizer, true);
    std::string text;
    for (const int id : ids) text += decoder.push(id);
    EXPECT_EQ(text + decoder.flush(), tokenizer.decode(ids, true));
  }
}

TEST(Encode, NamesTheByteThatIsNotUtf8) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  try {
    tokenizer.encode("the \xE2\x28");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_input);
    EXPECT_STREQ(error.what(), "text is not UTF-8: byte 0xe2 at offset 4");
  }
}

TEST(Encode, SaysIfAByteHasNoToken) {
  Json json = sample_tokenizer();
  json["model"]["vocab"].erase("z");
  try {
    make(json).encode("a z");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "0x7a", error.what());
  }
}

// A queue, not a search for each merge: a word of a million letters would take hours.
TEST(Encode, TakesLongWordsInItsStride) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  std::string word;
  for (int i = 0; i < 333'333; ++i) word += "the";
  EXPECT_EQ(tokenizer.encode(word), Ids(333'333, 257));
  const std::string letters(1'000'000, 'h');
  EXPECT_EQ(tokenizer.encode(letters).size(), letters.size());
}

// The two ways to merge agree: words around the length where one takes over.
TEST(Encode, ScanAndQueueAgree) {
  Json json = sample_tokenizer();
  auto& vocab = json["model"]["vocab"];
  auto& merges = json["model"]["merges"];
  int id = 300;
  for (const char* pair : {"a b", "b a", "ab a", "a a", "aa b", "ab ab", "aba ba", "b b"}) {
    std::string token = pair;
    std::erase(token, ' ');
    vocab.emplace(token, id++);
    merges.push_back(pair);
  }
  const Tokenizer tokenizer = make(json);
  std::uint32_t random = 7;
  for (int run = 0; run < 500; ++run) {
    std::string left, right;
    for (int i = 0; i < 20; ++i) {
      random = random * 1664525 + 1013904223;
      left += random >> 31 ? 'a' : 'b';
      right += random >> 30 & 1 ? 'a' : 'b';
    }
    // 'x' takes part in no merge, so the long word is the two short ones.
    Ids expected = tokenizer.encode(left + "x");
    const Ids end = tokenizer.encode(right);
    expected.insert(expected.end(), end.begin(), end.end());
    EXPECT_EQ(tokenizer.encode(left + "x" + right), expected);
  }
}

TEST(Encode, FromManyThreads) {
  const Tokenizer tokenizer = make(sample_tokenizer());
  const std::string text = "the he, then the other: \u00e9\u4e2d";
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += tokenizer.encode(text) != expected;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(Load, TakesAMillionMerges) {
  Json json = sample_tokenizer();
  std::string vocab = json["model"]["vocab"].dump(), merges = "[";
  vocab.pop_back();
  // Tokens of three letters of 100 (all of Latin Extended-A and before), each made of two letters and one.
  std::vector<std::string> letters;
  for (int byte = 0x21; letters.size() < 100; ++byte) {
    std::string letter;
    append_byte_character(letter, static_cast<unsigned char>(byte));
    if (letter != "\"" && letter != "\\") letters.push_back(letter);
  }
  json.erase("added_tokens"), json.erase("post_processor");
  int id = 1000;
  const auto add = [&](const std::string& left, const std::string& right) {
    if (left + right != "the" && left + right != "he") vocab += fmt::format(",\"{}{}\":{}", left, right, id++);
    merges += fmt::format("{}[\"{}\",\"{}\"]", merges.size() > 1 ? "," : "", left, right);
  };
  for (const auto& a : letters)
    for (const auto& b : letters) add(a, b);
  for (const auto& a : letters)
    for (const auto& b : letters)
      for (const auto& c : letters) add(a + b, c);
  json["model"]["vocab"] = "VOCAB", json["model"]["merges"] = "MERGES";
  std::string text = json.dump();
  text.replace(text.find("\"VOCAB\""), 7, vocab + "}");
  text.replace(text.find("\"MERGES\""), 8, merges + "]");
  const auto start = std::chrono::steady_clock::now();
  const Tokenizer tokenizer = Tokenizer::from_json(text, "big");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(*tokenizer.token(tokenizer.encode("abc").at(0)), "abc");
  EXPECT_LT(seconds.count(), 60) << "seconds, and that is with a sanitizer";
}

TEST(Load, FromAFile) {
  const TempDir folder;
  const std::string path = folder.write("tokenizer.json", sample_tokenizer().dump());
  EXPECT_EQ(Tokenizer::from_file(path).encode("the"), Ids{257});
  EXPECT_THROW(Tokenizer::from_file(folder / "none.json"), Error);
}

}  // namespace
}  // namespace lowp::text
