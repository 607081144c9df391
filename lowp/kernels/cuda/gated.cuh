// The gate of a decoder's block at the end of a product whose outputs are gate and up by turns, eight and eight.
#pragma once

#include <optional>

#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/layers.cuh"

namespace lowp::kernels::cuda {

/// GateActivation, or none.
enum class Gate : std::uint8_t { none, silu, gelu_tanh };

inline Gate gate_of(std::optional<GateActivation> activation) {
  if (!activation) return Gate::none;
  return *activation == GateActivation::silu ? Gate::silu : Gate::gelu_tanh;
}

__device__ __forceinline__ Bf16x8 gelu8(const Bf16x8& chunk) {
  float v[8];
  chunk.values(v);
#pragma unroll
  for (float& x : v) x = gelu(x);
  return to_chunk<Elem::bf16>(v);
}

/// activation(gate) * up, as gate_mul() has it after both were rounded to bf16.
__device__ __forceinline__ float gated(Gate kind, float gate, float up) {
  gate = round_bf16(gate);
  return round_bf16(kind == Gate::silu ? silu(gate) : gelu(gate)) * round_bf16(up);
}

/// The same of eight.
__device__ __forceinline__ Bf16x8 gated(Gate kind, const Bf16x8& gate, const Bf16x8& up) {
  return multiply(kind == Gate::silu ? silu8(gate) : gelu8(gate), up);
}

}  // namespace lowp::kernels::cuda
