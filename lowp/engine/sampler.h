// From logits to the next token: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowp/engine/request.h"
#include "lowp/models/token_choice.h"

namespace lowp::engine {

/// A uniform number in [0, 1), the n-th of a seed's sequence: Philox4x32-10, so any n is as cheap as the next.
double uniform(std::uint64_t seed, std::uint64_t n);

/// Why these parameters make no sense, as the parameter's name and a sentence about it; nullopt if they do.
struct BadParameter {
  std::string name, message;
};
std::optional<BadParameter> check(const Sampling& sampling);

/// What decides a sample beside logits and parameters.
struct History {
  std::span<const std::int32_t> prompt = {}, output = {};
  std::span<const std::int32_t> forbidden = {};  // ids that must not come now
  std::span<const std::uint32_t> allowed = {};   // a TokenMask's words; empty: all
  std::int64_t vocab_limit = 0;                  // ids from here on belong to no token; 0: no limit
};

/// What penalties, biases and prohibitions do to the logits of ids below `count`, one edit for an id.
std::vector<kernels::LogitEdit> logit_edits(const Sampling& sampling, const History& history, std::size_t count);

/// The chosen id, or why there is none.
struct Sample {
  std::int32_t token = -1;
  const char* error = nullptr;
};

/// Penalties, logit bias, masks, then at temperature 0 the likeliest id (the lowest on a tie); else temperature, top-k,
/// top-p, min-p and a draw with uniform(seed, output.size()). Of equally likely ids top-k and top-p keep the lower.
Sample sample(std::span<const float> logits, const Sampling& sampling, const History& history);

using Score = models::TokenScore;
Score score(std::span<const float> logits, std::int32_t token, int top, std::int64_t vocab_limit = 0);

}  // namespace lowp::engine
