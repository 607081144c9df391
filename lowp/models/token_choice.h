// What a device is asked about the tokens that follow: which one, and how likely it was. See engine/sampler.h.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lowp/kernels/logit_edit.h"

namespace lowp::models {

/// How the token after a row of the last forward() is chosen: edits, prohibitions, then at temperature 0 the likeliest
/// id (the lowest on a tie); else temperature, top-k, top-p, min-p and the draw that `uniform` decides.
struct TokenChoice {
  std::int64_t row = 0;
  double temperature = 0;
  std::int64_t top_k = 0;  // <= 0: all
  double top_p = 1, min_p = 0;
  double uniform = 0;                              // in [0, 1)
  std::span<const kernels::LogitEdit> edits = {};  // at most one for an id
  std::span<const std::uint32_t> allowed = {};     // bit i % 32 of word i / 32: id i may come; empty: all may
  bool plain() const { return temperature == 0 && edits.empty() && allowed.empty(); }
};

/// A token of which the score under a row of the last forward() is wanted.
struct TokenQuestion {
  std::int64_t row = 0;
  std::int32_t token = 0;
  int top = 0;  // how many of the likeliest ids beside it
};

/// Log-probability of a token under the logits as the model gave them.
struct TokenScore {
  std::int32_t token = -1;
  float logprob = 0;
  std::int64_t rank = 1;                                 // 1: no other id is likelier
  std::vector<std::pair<std::int32_t, float>> top = {};  // the likeliest ids and theirs, descending
};

}  // namespace lowp::models
