// What a sequence asks of the engine. Token ids only: text, stop strings and templates are the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lowp::engine {

/// How the next token is chosen. The defaults change nothing; see sampler.h for the order in which they apply.
struct Sampling {
  double temperature = 1;         // >= 0; 0 is greedy
  std::int64_t top_k = 0;         // keeps the k likeliest; 0 or -1: all
  double top_p = 1;               // (0, 1]: the smallest set of likeliest ids with at least this probability
  double min_p = 0;               // [0, 1]: at least this share of the likeliest id's probability
  double repetition_penalty = 1;  // > 0; of ids in the prompt or the output
  double presence_penalty = 0;    // [-2, 2]; of ids in the output
  double frequency_penalty = 0;   // [-2, 2]; times the count in the output
  std::vector<std::pair<std::int32_t, double>> logit_bias = {};  // [-100, 100] by id
  std::uint64_t seed = 0;  // the n-th token draws the n-th number of this seed, whatever else runs
};

/// Constrains what a request may say, as a grammar does. Driven by the engine's thread, for one request.
class TokenMask {
 public:
  virtual ~TokenMask() = default;
  /// The ids that may come next, one bit each, id i in word i / 32. `words` comes with no bit set.
  virtual void allowed(std::span<std::uint32_t> words) = 0;
  /// The token that came, stop ids included.
  virtual void accept(std::int32_t token) = 0;
};

struct Request {
  std::uint64_t id = 0;  // the caller's name for it; unique among unfinished requests
  std::vector<std::int32_t> prompt = {};
  std::int64_t max_new_tokens = 16;         // capped to what the context leaves
  std::int64_t min_tokens = 0;              // before that many, stop ids cannot come
  std::vector<std::int32_t> stop_ids = {};  // beside the model's end-of-sequence ids
  bool ignore_eos = false;                  // those of the model do not stop it
  Sampling sampling = {};
  std::optional<int> logprobs = {};         // score each new token, and list that many of the likeliest
  std::optional<int> prompt_logprobs = {};  // the same for the prompt, from its second token on
  std::shared_ptr<TokenMask> mask = {};
  std::string prefix_salt = {};  // finds in the prefix cache only what came with the same salt
};

}  // namespace lowp::engine
