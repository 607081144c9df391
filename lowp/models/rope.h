// Rotary position embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "lowp/formats/element.h"
#include "lowp/models/config.h"

namespace lowp::models {

/// The angles by which pairs (i, i + d/2) turn: position * frequency(i).
class RopeTable {
 public:
  RopeTable(const Rope& rope, std::int64_t head_dim, formats::Elem compute);
  /// cos and sin [head_dim / 2] at a position, in the compute dtype.
  void angles(std::int64_t position, float* cos, float* sin) const;

 private:
  std::vector<float> frequencies_;
  float factor_;
  formats::Elem compute_;
};

}  // namespace lowp::models
