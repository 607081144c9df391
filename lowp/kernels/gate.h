// What an MLP makes of its gate g and its up projection u.
#pragma once

#include <cstdint>

namespace lowp::kernels {

/// silu(g) u with silu(x) = x / (1 + e^-x), gelu(g) u in GELU's tanh form, or the clamped gate of gpt-oss's experts.
enum class GateActivation : std::uint8_t { silu, gelu_tanh, clamped };

/// The clamped gate (checkpoint-formats 4.3): g / (1 + e^(-kGateSlope g)) * (u + 1), where g counts as kGateLimit at
/// most and u between -kGateLimit and kGateLimit.
inline constexpr float kGateLimit = 7.0f, kGateSlope = 1.702f;

}  // namespace lowp::kernels
