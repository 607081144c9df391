// What penalties, biases and prohibitions do to single logits before a token is chosen.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowp/base/bits.h"

namespace lowp::kernels {

/// Of one id's logit: first the repetition penalty, which divides what is above zero and multiplies the rest; then
/// `minus`, presence and frequency; then `plus`, a bias, or -infinity: the id does not come.
struct LogitEdit {
  std::int32_t id = 0;
  float penalty = 1, minus = 0, plus = 0;
};

LOWP_HD inline float edited(float logit, const LogitEdit& edit) {
  if (edit.plus == -INFINITY) return edit.plus;
  const float penalized = logit > 0 ? logit / edit.penalty : logit * edit.penalty;
  return penalized - edit.minus + edit.plus;
}

}  // namespace lowp::kernels
