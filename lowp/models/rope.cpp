#include "lowp/models/rope.h"

#include <cmath>

#include "lowp/formats/codec.h"

namespace lowp::models {

using formats::round_to;

RopeTable::RopeTable(const Rope& rope, std::int64_t head_dim, formats::Elem compute)
    : factor_(static_cast<float>(rope.attention_factor)), compute_(compute) {
  for (const double f : rope_frequencies(rope, head_dim)) frequencies_.push_back(static_cast<float>(f));
}

void RopeTable::angles(std::int64_t position, float* cos, float* sin) const {
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];
    cos[i] = round_to(compute_, std::cos(angle) * factor_);
    sin[i] = round_to(compute_, std::sin(angle) * factor_);
  }
}

}  // namespace lowp::models
