// Choosing the next token, for the vocabularies that models have.
#pragma once

#include <vector>

#include "bench/cases.h"

namespace lowp::bench {

/// One case for each way to sample and each vocabulary (128256 and 262144 ids, or the selection's n): one row of
/// logits, of which a few ids hold most of the probability ("flat": none does). The limit is reading the logits once.
std::vector<Case> sample_cases(const Selection& selection);

}  // namespace lowp::bench
