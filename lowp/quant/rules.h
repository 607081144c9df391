// Which layer gets which recipe: an ordered list of rules, first match wins.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/base/match.h"
#include "lowp/formats/recipes.h"
#include "lowp/quant/quantize.h"

namespace lowp::quant {

/// What a layer is; decides what happens when no rule names it explicitly.
enum class Role {
  linear,     // quantized by default
  head,       // lm_head
  embedding,  // token embedding
  router,     // of a mixture of experts
};

/// By the last part of its name.
Role role_of(std::string_view module);

/// Whether this is the embedding that a head without weights of its own is tied to.
bool is_token_embedding(std::string_view module);

/// The matrix that vLLM fuses a module into ("...self_attn.qkv"): modules with equal names share tensor-level scales.
std::string fused_name(const std::string& module);

struct Rule {
  NamePattern match;
  std::optional<formats::Recipe> recipe;  // nullopt: keep in high precision
  Algorithm algorithm = Algorithm::absmax;
};

/// What a layer gets.
struct Choice {
  formats::Recipe recipe;
  Algorithm algorithm = Algorithm::absmax;
};

class Rules {
 public:
  /// One recipe for every Linear. Throws Error(usage) if the algorithm cannot make its format.
  static Rules single(const formats::Recipe& recipe, Algorithm algorithm = Algorithm::absmax);
  /// A recipe file: [{"match": ..., "recipe": ... or null, "algorithm": ...}, ...]. Throws Error(bad_input) naming
  /// `where` and the rule for unknown keys, recipes, algorithms and bad patterns.
  static Rules parse(const Json& json, const std::string& where);

  /// The recipe of a layer, or nullopt to keep it. Heads, embeddings and routers are kept unless the rule means
  /// them and would not match a Linear in their place ("lm_head", "*embed*", "re:.*\\.gate", but not "*" or "model.*");
  /// they may only be weight-only: Error(usage) otherwise.
  std::optional<Choice> choose(const std::string& module, Role role);

  /// The same, without noting that the rule was used.
  std::optional<Choice> peek(const std::string& module, Role role) const;

  /// Patterns that matched no layer in choose() so far.
  std::vector<std::string> unmatched() const;

 private:
  std::optional<std::size_t> rule_for(const std::string& module, Role role) const;
  std::optional<Choice> choice(std::size_t rule, const std::string& module, Role role) const;

  std::vector<Rule> rules_;
  std::vector<bool> used_;
};

}  // namespace lowp::quant
