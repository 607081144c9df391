// The architectures: one file each.   <- ADD A MODEL: docs/adding/model.md
#pragma once

#include "lowp/models/config.h"

namespace lowp::models {

/// Fills in what is special about an architecture; dimensions, norms and RoPE are read already.
struct Architecture {
  const char* name;  // architectures[0] of config.json
  void (*configure)(const Json& json, const std::string& where, Config& config);
};

extern const Architecture kGemma3, kGptOss, kLlama, kMistral, kMixtral, kQwen2, kQwen3, kQwen3Moe;

/// Helpers for configure(): whether a field is there and not null; a flag or number with its default; Error(bad_input)
/// naming where and key on a wrong type.
bool given(const Json& json, const char* key);
bool flag_or(const Json& json, const std::string& where, const char* key, bool fallback);
std::int64_t count_or(const Json& json, const std::string& where, const char* key, std::int64_t fallback);
double number_or(const Json& json, const std::string& where, const char* key, double fallback);

/// config.experts_per_token from num_experts_per_tok; Error(bad_input) for more than there are.
void read_experts_per_token(const Json& json, const std::string& where, std::int64_t fallback, Config& config);

/// Gives all layers the window of `sliding_window` (missing or null: none), unless layer_types says which have one.
void slide_all_layers(const Json& json, const std::string& where, Config& config);

}  // namespace lowp::models
