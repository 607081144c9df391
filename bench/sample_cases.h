// Choosing the next token, for the vocabularies that models have.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "lowp/engine/request.h"

namespace lowp::bench {

/// A way to choose a token.
struct SampleWay {
  const char* name;
  engine::Sampling sampling;
  bool flat = false;
};
/// Those of the selection's recipes, or all. Throws Error(usage) for a name that is none of them.
std::vector<SampleWay> sample_ways(const Selection& selection);

/// A row of logits, of which a few ids hold most of the probability, unless they are flat.
std::vector<float> sample_logits(std::int64_t vocab, bool flat);

/// One case for each way to sample and each vocabulary (128256 and 262144 ids, or the selection's n): one row of
/// logits, of which a few ids hold most of the probability ("flat": none does). The limit is reading the logits once.
std::vector<Case> sample_cases(const Selection& selection);

}  // namespace lowp::bench
