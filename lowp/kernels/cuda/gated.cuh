// The gate of a decoder's block at the end of a product whose outputs are gate and up by turns, eight and eight.
#pragma once

#include <optional>

#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/gate.h"

namespace lowp::kernels::cuda {

/// GateActivation, or none.
enum class Gate : std::uint8_t { none, silu, gelu_tanh, clamped };

inline Gate gate_of(std::optional<GateActivation> activation) {
  if (!activation) return Gate::none;
  switch (*activation) {
    case GateActivation::silu:
      return Gate::silu;
    case GateActivation::gelu_tanh:
      return Gate::gelu_tanh;
    case GateActivation::clamped:
      return Gate::clamped;
  }
  return Gate::none;
}

/// activation(gate) * up, as gate_mul() has it after both were rounded to bf16; not rounded.
__device__ __forceinline__ float gated(Gate kind, float gate, float up) {
  gate = round_bf16(gate);
  up = round_bf16(up);
  if (kind == Gate::clamped) {
    gate = gate > kGateLimit ? kGateLimit : gate;  // NaN passes
    up = up > kGateLimit ? kGateLimit : up;
    up = up < -kGateLimit ? -kGateLimit : up;
    const float sigmoid = formats::divide(1.0f, 1.0f + exp_f32(-round_bf16(gate * kGateSlope)));
    return round_bf16(up + 1.0f) * round_bf16(gate * round_bf16(sigmoid));
  }
  return round_bf16(kind == Gate::silu ? silu(gate) : gelu(gate)) * up;
}

/// The same of eight, rounded.
__device__ __forceinline__ Bf16x8 gated(Gate kind, const Bf16x8& gate, const Bf16x8& up) {
  if (kind == Gate::silu) return multiply(silu8(gate), up);
  float v[8], by[8];
  gate.values(v);
  up.values(by);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = gated(kind, v[i], by[i]);
  return to_chunk<Elem::bf16>(v);
}

}  // namespace lowp::kernels::cuda
