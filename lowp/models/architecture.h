// The architectures: one file each.   <- ADD A MODEL: a file arch_<name>.cpp and a line in config.cpp
#pragma once

#include "lowp/models/config.h"

namespace lowp::models {

/// Fills in what is special about an architecture; dimensions, norms and RoPE are read already.
struct Architecture {
  const char* name;  // architectures[0] of config.json
  void (*configure)(const Json& json, const std::string& where, Config& config);
};

extern const Architecture kLlama, kQwen2, kQwen3, kQwen3Moe, kGemma3;

/// Helpers for configure(): a flag or number with its default; Error(bad_input) naming where and key on a wrong type.
bool flag_or(const Json& json, const std::string& where, const char* key, bool fallback);
std::int64_t count_or(const Json& json, const std::string& where, const char* key, std::int64_t fallback);
double number_or(const Json& json, const std::string& where, const char* key, double fallback);

}  // namespace lowp::models
