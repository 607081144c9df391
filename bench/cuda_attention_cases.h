// Attention over paged keys and values on a CUDA GPU.
#pragma once

#include "bench/cases.h"

namespace lowp::bench {

/// 32 query heads and 8 KV heads of 128. "attention:prefill": one prompt of m tokens, causal, against the library's
/// product; 4 S S D H operations, halved. "attention:noncausal": every token sees all, 4 S S D H. "attention:decode": m
/// sequences with k tokens each, in graphs of calls over so many caches that none is found in the second-level cache,
/// against reading memory. Recipes are the types of the cache: bf16, fp8, int8, and fp8-fp8, where prompts round
/// queries and weights to fp8 too. An m beyond kMostSequences is a prompt's, another one a batch's; k is its context.
std::vector<Case> cuda_attention_cases(const Selection& selection);

}  // namespace lowp::bench
