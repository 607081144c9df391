// The ids that the tokenizers package gives: tests/golden/tokenizer_cases.jsonl, made by
// tools/golden/make_tokenizer.py.
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/json.h"
#include "lowp/text/stream_decoder.h"
#include "lowp/text/tokenizer.h"

namespace lowp::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::string hash(std::string_view bytes) {
  std::uint32_t value = 0x811C9DC5;
  for (const char byte : bytes) value = (value ^ static_cast<unsigned char>(byte)) * 0x01000193;
  return fmt::format("{:08x}", value);
}

// Of the ids as little-endian int32.
std::string hash(const Ids& ids) {
  return hash(std::string_view(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof ids[0]));
}

std::string path_of(const std::string& name) {
  return LOWP_SOURCE_DIR +
         (name == "bookworm" ? "/models/bookworm-8m/tokenizer.json" : "/tests/golden/tokenizer_" + name + ".json");
}

std::vector<Json> lines() {
  std::istringstream file(read_text(LOWP_SOURCE_DIR "/tests/golden/tokenizer_cases.jsonl"));
  std::vector<Json> all;
  for (std::string line; std::getline(file, line);) all.push_back(parse_json(line, "tokenizer_cases.jsonl"));
  return all;
}

std::string text_of(const Json& line) {
  std::string text;
  for (int i = line.value("repeat", 1); i > 0; --i) text += line["text"].get<std::string>();
  return text;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.flush();
}

TEST(TokenizerGolden, SameIdsAsTheTokenizersPackage) {
  const auto all = lines();
  const auto names = all.at(0).at("tokenizers").get<std::vector<std::string>>();
  ASSERT_GT(all.size(), 2000u);
  const auto first_of_characters = names.size() - all[1]["texts"].size();
  for (std::size_t which = 0; which < names.size(); ++which) {
    const Tokenizer tokenizer = Tokenizer::from_file(path_of(names[which]));
    for (std::size_t i = 1; i < all.size(); ++i) {
      const std::string text = text_of(all[i]);
      const Ids ids = tokenizer.encode(text, true);
      EXPECT_EQ(ids.size(), all[i]["counts"][which].get<std::size_t>()) << names[which] << ": " << all[i]["text"];
      EXPECT_EQ(hash(ids), all[i]["hashes"][which].get<std::string>()) << names[which] << ": " << all[i]["text"];
      if (which == 0 && all[i].contains("ids")) EXPECT_EQ(ids, all[i]["ids"].get<Ids>());
      EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids));
      if (which >= first_of_characters)
        EXPECT_EQ(hash(tokenizer.decode(ids)), all[i]["texts"][which - first_of_characters].get<std::string>())
            << names[which] << ": " << all[i]["text"];
      // These neither normalize nor drop anything.
      if (names[which] == "bookworm" || names[which] == "gpt2" || names[which] == "gpt_oss")
        EXPECT_EQ(tokenizer.decode(ids), text);
    }
  }
}

}  // namespace
}  // namespace lowp::text
