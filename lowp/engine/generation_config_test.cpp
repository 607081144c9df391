#include "lowp/engine/generation_config.h"

#include <gtest/gtest.h>

#include "lowp/base/error.h"
#include "tests/temp_dir.h"

namespace lowp::engine {
namespace {

GenerationConfig parse(const char* text) { return parse_generation_config(parse_json(text, "test"), "g.json"); }

TEST(GenerationConfig, ReadsWhatItNames) {
  const auto config = parse(
      R"({"eos_token_id": [5, 7], "do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.05, "max_new_tokens": 99, "other": []})");
  EXPECT_EQ(config.eos_ids, (std::vector<std::int32_t>{5, 7}));
  const Sampling s = config.sampling();
  EXPECT_EQ(s.temperature, 0.6);
  EXPECT_EQ(s.top_k, 20);
  EXPECT_EQ(s.top_p, 0.95);
  EXPECT_EQ(s.repetition_penalty, 1.05);
  EXPECT_EQ(config.max_new_tokens, 99);
}

TEST(GenerationConfig, AbsentIsNeutral) {
  const auto config = parse(R"({"eos_token_id": 3, "top_k": null})");
  EXPECT_EQ(config.eos_ids, (std::vector<std::int32_t>{3}));
  EXPECT_EQ(config.sampling().temperature, 1);
  EXPECT_EQ(config.sampling().top_k, 0);
  EXPECT_EQ(config.sampling().top_p, 1);
  EXPECT_FALSE(config.max_new_tokens);
}

TEST(GenerationConfig, NotSamplingIsGreedy) {
  EXPECT_EQ(parse(R"({"do_sample": false, "temperature": 0.6})").sampling().temperature, 0);
}

TEST(GenerationConfig, BadValuesAreNamed) {
  for (const auto& [text, word] : {std::pair{R"([])", "object"},
                                   {R"({"temperature": "hot"})", "temperature"},
                                   {R"({"temperature": -1})", "temperature"},
                                   {R"({"top_p": 2})", "top_p"},
                                   {R"({"top_k": 1.5})", "top_k"},
                                   {R"({"top_k": 1e300})", "top_k"},
                                   {R"({"max_new_tokens": 0})", "max_new_tokens"},
                                   {R"({"do_sample": 1})", "do_sample"},
                                   {R"({"eos_token_id": "x"})", "eos_token_id"},
                                   {R"({"eos_token_id": [1, -2]})", "eos_token_id"},
                                   {R"({"eos_token_id": 1e99})", "eos_token_id"}}) {
    try {
      parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::bad_input);
      EXPECT_NE(std::string(e.what()).find(std::string("g.json: ") + (*text == '[' ? "" : word)), std::string::npos)
          << e.what();
    }
  }
}

TEST(GenerationConfig, TheFileMayBeAbsent) {
  const TempDir folder;
  EXPECT_TRUE(read_generation_config(folder.path()).eos_ids.empty());
  folder.write("generation_config.json", R"({"eos_token_id": 9})");
  EXPECT_EQ(read_generation_config(folder.path()).eos_ids, (std::vector<std::int32_t>{9}));
}

TEST(MergedIds, IsAUnion) { EXPECT_EQ(merged_ids({3, 1}, {1, 2, 3, 4}), (std::vector<std::int32_t>{3, 1, 2, 4})); }

}  // namespace
}  // namespace lowp::engine
