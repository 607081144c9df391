#include "lowp/quant/rules.h"

#include <algorithm>
#include <array>

#include "lowp/base/error.h"

namespace lowp::quant {
namespace {

constexpr std::array<std::string_view, 5> kEmbeddings = {"embed_tokens", "wte", "wpe", "tok_embeddings",
                                                         "word_embeddings"};
constexpr std::array<std::string_view, 2> kHeads = {"lm_head", "embed_out"};

std::string_view last_part(std::string_view module) { return module.substr(module.rfind('.') + 1); }

Rule parse_rule(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, json.type_name());
  for (const auto& [key, value] : json.items())
    if (key != "match" && key != "recipe" && key != "algorithm")
      fail(ErrorCode::bad_input, "{}: unknown key '{}'; known: match, recipe, algorithm", where, key);
  const auto text = [&](const char* key) {
    const Json& value = json.at(key);
    if (!value.is_string())
      fail(ErrorCode::bad_input, "{}: {}: expected a string, found {}", where, key, value.type_name());
    return value.get<std::string>();
  };
  if (!json.contains("match")) fail(ErrorCode::bad_input, "{}: match is missing", where);
  if (!json.contains("recipe")) fail(ErrorCode::bad_input, "{}: recipe is missing (null keeps the layer)", where);
  try {
    Rule rule{NamePattern(text("match"), "match"), std::nullopt};
    if (!json.at("recipe").is_null()) rule.recipe = formats::recipe(text("recipe"));
    if (json.contains("algorithm") && !json.at("algorithm").is_null()) {
      rule.algorithm = find_algorithm(text("algorithm"));
      if (!rule.recipe) fail(ErrorCode::usage, "algorithm without a recipe");
      if (const std::string wrong = refusal(rule.algorithm, rule.recipe->weight); !wrong.empty())
        fail(ErrorCode::usage, "{}", wrong);
    }
    return rule;
  } catch (const Error& error) {  // an unknown word on the command line is bad usage, in a file it is bad input
    fail(ErrorCode::bad_input, "{}: {}", where, error.what());
  }
}

}  // namespace

Role role_of(std::string_view module) {
  const std::string_view last = last_part(module);
  if (std::find(kEmbeddings.begin(), kEmbeddings.end(), last) != kEmbeddings.end()) return Role::embedding;
  if (std::find(kHeads.begin(), kHeads.end(), last) != kHeads.end()) return Role::head;
  // Routers: mlp.gate, block_sparse_moe.gate, mlp.router, shared_expert_gate.
  if (last == "gate" || last == "router" || last == "shared_expert_gate") return Role::router;
  return Role::linear;
}

bool is_token_embedding(std::string_view module) { return last_part(module) == "embed_tokens"; }

std::string fused_name(const std::string& module) {
  static constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"q_proj", "qkv"},      {"k_proj", "qkv"}, {"v_proj", "qkv"}, {"gate_proj", "gate_up"},
      {"up_proj", "gate_up"}, {"w1", "w13"},     {"w3", "w13"}};
  const auto dot = module.rfind('.');
  const std::string last = module.substr(dot + 1);
  for (const auto& [part, whole] : kParts)
    if (last == part) return module.substr(0, dot + 1) + std::string(whole);
  return module;
}

Rules Rules::single(const formats::Recipe& recipe, Algorithm algorithm) {
  if (const std::string wrong = refusal(algorithm, recipe.weight); !wrong.empty()) fail(ErrorCode::usage, "{}", wrong);
  Rules rules;
  rules.rules_.push_back({NamePattern("*", "recipe"), recipe, algorithm});
  rules.used_.push_back(true);
  return rules;
}

Rules Rules::parse(const Json& json, const std::string& where) {
  if (!json.is_array()) fail(ErrorCode::bad_input, "{}: expected a list of rules, found {}", where, json.type_name());
  if (json.empty()) fail(ErrorCode::bad_input, "{}: the list of rules is empty", where);
  Rules rules;
  for (std::size_t i = 0; i < json.size(); ++i)
    rules.rules_.push_back(parse_rule(json[i], fmt::format("{}: rule {}", where, i)));
  rules.used_.assign(rules.rules_.size(), false);
  return rules;
}

std::optional<std::size_t> Rules::rule_for(const std::string& module, Role role) const {
  // A Linear at the same place.
  const std::string neighbour = module.substr(0, module.rfind('.') + 1) + "other_proj";
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    if (!rules_[i].match.matches(module)) continue;
    // A pattern that sweeps over Linears too does not mean the layers that are kept by default.
    if (role == Role::linear || !rules_[i].match.matches(neighbour)) return i;
  }
  return std::nullopt;
}

std::optional<Choice> Rules::choice(std::size_t index, const std::string& module, Role role) const {
  const Rule& rule = rules_[index];
  if (!rule.recipe || rule.recipe->keeps()) return std::nullopt;
  if (role != Role::linear && rule.recipe->activation)
    fail(ErrorCode::usage,
         "{}: recipe {} quantizes activations; heads, embeddings and routers are weight-only ({}-bf16)", module,
         rule.recipe->name, rule.recipe->weight.name);
  return Choice{*rule.recipe, rule.algorithm};
}

std::optional<Choice> Rules::choose(const std::string& module, Role role) {
  const auto rule = rule_for(module, role);
  if (!rule) return std::nullopt;
  used_[*rule] = true;
  return choice(*rule, module, role);
}

std::optional<Choice> Rules::peek(const std::string& module, Role role) const {
  const auto rule = rule_for(module, role);
  return rule ? choice(*rule, module, role) : std::nullopt;
}

std::vector<std::string> Rules::unmatched() const {
  std::vector<std::string> patterns;
  for (std::size_t i = 0; i < rules_.size(); ++i)
    if (!used_[i]) patterns.push_back(rules_[i].match.text());
  return patterns;
}

}  // namespace lowp::quant
