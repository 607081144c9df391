// From logits to the next token: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowp/engine/request.h"

namespace lowp::engine {

/// A uniform number in [0, 1), the n-th of a seed's sequence: Philox4x32-10, so any n is as cheap as the next.
double uniform(std::uint64_t seed, std::uint64_t n);

/// Why these parameters make no sense, as the parameter's name and a sentence about it; nullopt if they do.
struct BadParameter {
  std::string name, message;
};
std::optional<BadParameter> check(const Sampling& sampling);

/// Whether the sample is the largest logit as the model gave it.
bool takes_largest(const Sampling& sampling);

/// Whether it is a draw from all ids (but those that min_p leaves out) by the logits as the model gave them.
bool draws_from_all(const Sampling& sampling);

/// What decides a sample beside logits and parameters.
struct History {
  std::span<const std::int32_t> prompt = {}, output = {};
  std::span<const std::int32_t> forbidden = {};  // ids that must not come now
  std::span<const std::uint32_t> allowed = {};   // a TokenMask's words; empty: all
  std::int64_t vocab_limit = 0;                  // ids from here on belong to no token; 0: no limit
};

/// The chosen id, or why there is none.
struct Sample {
  std::int32_t token = -1;
  const char* error = nullptr;
};

/// Penalties, logit bias, masks, then at temperature 0 the likeliest id (the lowest on a tie); else temperature, top-k,
/// top-p, min-p and a draw with uniform(seed, output.size()). Of equally likely ids top-k and top-p keep the lower.
Sample sample(std::span<const float> logits, const Sampling& sampling, const History& history);

/// Log-probability of a token under the logits as the model gave them.
struct Score {
  std::int32_t token = -1;
  float logprob = 0;
  std::int64_t rank = 1;                                 // 1: no other id is likelier
  std::vector<std::pair<std::int32_t, float>> top = {};  // the likeliest ids and theirs, descending
};
Score score(std::span<const float> logits, std::int32_t token, int top, std::int64_t vocab_limit = 0);

}  // namespace lowp::engine
