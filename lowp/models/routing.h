// Which experts a token goes to.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowp/formats/element.h"
#include "lowp/models/config.h"

namespace lowp::models {

/// An expert that a row goes to, with the weight of its output.
struct Choice {
  std::int64_t expert;
  float weight;
};

/// The experts_per_token likeliest experts of each row, the likeliest first (of equals the lower), by the softmax of
/// the router's scores [rows, num_experts]; weights divided by their sum where norm_topk_prob says so (which makes them
/// the softmax of the chosen scores), rounded to the compute dtype where round_expert_weights does. choices: [rows,
/// experts_per_token].
void route(const Config& config, formats::Elem compute, std::span<const float> scores, std::vector<Choice>& choices);

}  // namespace lowp::models
