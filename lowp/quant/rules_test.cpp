#include "lowp/quant/rules.h"

#include <gtest/gtest.h>

#include "lowp/base/error.h"

namespace lowp::quant {
namespace {

Rules parse(const std::string& text) { return Rules::parse(parse_json(text, "rules.json"), "rules.json"); }

std::string chosen(Rules& rules, const std::string& module, Role role = Role::linear) {
  const auto choice = rules.choose(module, role);
  return choice ? choice->recipe.name : "kept";
}

TEST(RulesTest, FirstMatchWins) {
  Rules rules = parse(R"([{"match": "a.q_proj", "recipe": "fp8"}, {"match": "re:a\\.[qk]_proj", "recipe": null},
                         {"match": "*_proj", "recipe": "int4"}])");
  EXPECT_EQ(chosen(rules, "a.q_proj"), "fp8-fp8");
  EXPECT_EQ(chosen(rules, "a.k_proj"), "kept");
  EXPECT_EQ(chosen(rules, "a.v_proj"), "int4_g128-bf16");
  EXPECT_EQ(chosen(rules, "a.other"), "kept");
  EXPECT_TRUE(rules.unmatched().empty());
}

TEST(RulesTest, RegularExpressionsMatchTheFullName) {
  Rules rules = parse(R"([{"match": "re:q_proj", "recipe": "fp8"}])");
  EXPECT_EQ(chosen(rules, "a.q_proj"), "kept");
  EXPECT_EQ(rules.unmatched(), std::vector<std::string>{"re:q_proj"});
}

TEST(RulesTest, HeadsEmbeddingsAndRoutersNeedAnExplicitRule) {
  Rules sweep = parse(R"([{"match": "*", "recipe": "int8-bf16"}])");
  EXPECT_EQ(chosen(sweep, "lm_head", Role::head), "kept");
  EXPECT_EQ(chosen(sweep, "model.embed_tokens", Role::embedding), "kept");
  EXPECT_EQ(chosen(sweep, "model.layers.0.mlp.gate", Role::router), "kept");
  Rules part =
      parse(R"([{"match": "re:.*(mlp|gate).*", "recipe": "int8-bf16"}, {"match": "model.*", "recipe": "int8-bf16"},
                        {"match": "*embed*", "recipe": "fp8-bf16"}, {"match": "re:lm.head", "recipe": "int4"}])");
  EXPECT_EQ(chosen(part, "model.layers.0.mlp.gate", Role::router), "kept");
  EXPECT_EQ(chosen(part, "model.embed_tokens", Role::embedding), "fp8-bf16");
  EXPECT_EQ(chosen(part, "lm_head", Role::head), "int4_g128-bf16");
  Rules named = parse(R"([{"match": "lm_head", "recipe": "int8-bf16"}, {"match": "*embed_tokens", "recipe": "int4"},
                         {"match": "re:.*mlp\\.gate", "recipe": "fp8-bf16"}])");
  EXPECT_EQ(chosen(named, "lm_head", Role::head), "int8-bf16");
  EXPECT_EQ(chosen(named, "model.embed_tokens", Role::embedding), "int4_g128-bf16");
  EXPECT_EQ(chosen(named, "model.layers.0.mlp.gate", Role::router), "fp8-bf16");
  Rules activations = parse(R"([{"match": "lm_head", "recipe": "int8"}])");
  EXPECT_THROW(activations.choose("lm_head", Role::head), Error);
}

TEST(RulesTest, BadFilesSayWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "expected a list"},
      {R"([])", "empty"},
      {R"([1])", "rule 0: expected an object"},
      {R"([{"match": "a"}])", "recipe is missing"},
      {R"([{"recipe": "fp8"}])", "match is missing"},
      {R"([{"match": 3, "recipe": "fp8"}])", "match: expected a string"},
      {R"([{"match": "a", "recipe": "fp9"}])", "did you mean"},
      {R"([{"match": "a", "recipe": "fp8", "algoritm": "hqq"}])", "unknown key 'algoritm'"},
      {R"([{"match": "a", "recipe": "fp8", "algorithm": "hqq"}])", "hqq refines"},
      {R"([{"match": "a", "recipe": "int4", "algorithm": "hqqq"}])", "did you mean 'hqq'"},
      {R"([{"match": "re:(", "recipe": "int4"}])", "bad regular expression"},
  };
  for (const auto& [text, expected] : cases) {
    try {
      parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_input) << text;
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  }
}

TEST(RulesTest, CostlyExpressionsAreStopped) {
  Rules rules = parse(R"([{"match": "re:(a+)+$", "recipe": "int4"}])");
  EXPECT_THROW(rules.choose(std::string(60, 'a') + "b", Role::linear), Error);
}

}  // namespace
}  // namespace lowp::quant
