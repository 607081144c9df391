#include "lowp/engine/generation_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/engine/sampler.h"

namespace lowp::engine {
namespace {

// The field unless it is absent or null.
const Json* field(const Json& json, const char* key) {
  const auto at = json.find(key);
  return at == json.end() || at->is_null() ? nullptr : &*at;
}

std::optional<double> number(const Json& json, const std::string& where, const char* key) {
  const Json* value = field(json, key);
  if (!value) return std::nullopt;
  if (!value->is_number())
    fail(ErrorCode::bad_input, "{}: {}: expected a number, found {}", where, key, value->type_name());
  return value->get<double>();
}

std::optional<std::int64_t> count(const Json& json, const std::string& where, const char* key) {
  const std::optional<double> value = number(json, where, key);
  if (!value) return std::nullopt;
  if (*value != std::floor(*value) || std::abs(*value) > 1e9)
    fail(ErrorCode::bad_input, "{}: {}: expected a count, found {}", where, key, *value);
  return static_cast<std::int64_t>(*value);
}

std::vector<std::int32_t> token_ids(const Json& json, const std::string& where, const char* key) {
  const Json* value = field(json, key);
  if (!value) return {};
  std::vector<std::int32_t> ids;
  for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > INT32_MAX)
      fail(ErrorCode::bad_input, "{}: {}: expected token ids, found {}", where, key, quote(id.dump()));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

}  // namespace

Sampling GenerationConfig::sampling() const {
  Sampling s;
  s.temperature = do_sample == false ? 0 : temperature.value_or(s.temperature);
  s.top_k = top_k.value_or(s.top_k);
  s.top_p = top_p.value_or(s.top_p);
  s.min_p = min_p.value_or(s.min_p);
  s.repetition_penalty = repetition_penalty.value_or(s.repetition_penalty);
  return s;
}

GenerationConfig parse_generation_config(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, json.type_name());
  GenerationConfig config;
  config.eos_ids = token_ids(json, where, "eos_token_id");
  if (const Json* value = field(json, "do_sample")) {
    if (!value->is_boolean())
      fail(ErrorCode::bad_input, "{}: do_sample: expected true or false, found {}", where, value->type_name());
    config.do_sample = value->get<bool>();
  }
  config.temperature = number(json, where, "temperature");
  config.top_p = number(json, where, "top_p");
  config.min_p = number(json, where, "min_p");
  config.repetition_penalty = number(json, where, "repetition_penalty");
  config.top_k = count(json, where, "top_k");
  config.max_new_tokens = count(json, where, "max_new_tokens");
  if (config.max_new_tokens.value_or(1) < 1)
    fail(ErrorCode::bad_input, "{}: max_new_tokens: expected at least 1, found {}", where, *config.max_new_tokens);
  if (const auto bad = check(config.sampling())) fail(ErrorCode::bad_input, "{}: {}", where, bad->message);
  return config;
}

GenerationConfig read_generation_config(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "generation_config.json").string();
  if (!std::filesystem::exists(path)) return {};
  return parse_generation_config(read_json(path, {16, 16 << 20}), path);
}

std::vector<std::int32_t> merged_ids(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  std::vector<std::int32_t> all;
  for (const auto* ids : {&a, &b})
    for (const std::int32_t id : *ids)
      if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
  return all;
}

}  // namespace lowp::engine
