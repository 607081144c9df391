// The clamped gate of gpt-oss's experts (checkpoint-formats 4.3).
#pragma once

namespace lowp::kernels {

/// Of a gate g and an up projection u: g / (1 + e^(-kGateSlope g)) * (u + 1), where g counts as kGateLimit at most and
/// u between -kGateLimit and kGateLimit.
inline constexpr float kGateLimit = 7.0f, kGateSlope = 1.702f;

}  // namespace lowp::kernels
