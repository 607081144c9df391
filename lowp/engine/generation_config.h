// generation_config.json of a model folder: what its makers recommend for sampling, and what ends a sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/engine/request.h"

namespace lowp::engine {

struct GenerationConfig {
  std::vector<std::int32_t> eos_ids;
  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  std::optional<std::int64_t> max_new_tokens;  // at least 1

  /// The parameters that are named, the defaults of Sampling for the others. do_sample: false is greedy.
  Sampling sampling() const;
};

/// Throws Error(bad_input) naming file and field on a wrong type or a value outside what Sampling allows.
GenerationConfig parse_generation_config(const Json& json, const std::string& where);

/// Reads it from a model's folder; a folder without one recommends nothing.
GenerationConfig read_generation_config(const std::string& folder);

/// The union, in order, without repetition.
std::vector<std::int32_t> merged_ids(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b);

}  // namespace lowp::engine
