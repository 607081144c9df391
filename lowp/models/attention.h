// Rotary embedding and causal attention of one head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowp/formats/element.h"
#include "lowp/models/config.h"

namespace lowp::models {

/// Rotates halves: pair (i, i + d/2) by position * frequency(i).
class RopeTable {
 public:
  RopeTable(const Rope& rope, std::int64_t head_dim, formats::Elem compute);
  /// heads [heads, head_dim] of the token at `position`, in place, rounded to the compute dtype.
  void rotate(float* heads, std::int64_t count, std::int64_t position) const;
  /// cos and sin [head_dim / 2] at a position, in the compute dtype.
  void angles(std::int64_t position, std::vector<float>& cos, std::vector<float>& sin) const;

 private:
  std::vector<float> frequencies_;
  float factor_;
  std::int64_t head_dim_;
  formats::Elem compute_;
};

/// One head: row r of `rows` queries stands at position past + r and sees keys 0 .. past + r, or the last `window` of
/// them.
struct AttendArgs {
  const float* queries;  // row r at queries + r * stride, [head_dim]
  std::int64_t stride, rows, past, head_dim;
  float scale;                          // of the scores
  std::int64_t window = 0;              // 0: all
  std::span<const float> keys, values;  // [past + rows, head_dim]
};

/// softmax(scale q k^T) v into out (row r at out + r * stride), rounded to `compute`; f32 inside, keys in
/// order.
void attend(const AttendArgs& args, formats::Elem compute, float* out);

}  // namespace lowp::models
