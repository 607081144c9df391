// The arithmetic of a router, shared by the CPU and the GPU so that both choose the same experts with the same weights:
// plain operations in a fixed order.
#pragma once

#include "lowp/kernels/front.h"

namespace lowp::kernels {

/// Summands that a softmax's exponentials are dealt to: expert e adds to summand e % kRouterLanes, in the order of e;
/// then they are folded in halves. A GPU's warp does that by itself.
inline constexpr int kRouterLanes = 32;

/// The softmax's exponential of a score, `largest` being the row's largest.
LOWP_HD constexpr float router_exp(float score, float largest) { return exp_f32(score - largest); }

}  // namespace lowp::kernels
