// What a decoder does between and after its matrix products, row by row: one variant for each instruction set, all with
// the same result. `bf16`: results, and the intermediates that transformers' eager code writes to tensors, are rounded
// to bf16; otherwise all is f32. Only plain multiplications and additions, in a fixed order.
#pragma once

#include <cstdint>

namespace lowp::kernels::cpu {

/// Rows of logits are summed up in blocks of so many.
constexpr std::int64_t kLogitBlock = 256;

struct ElementwiseKernels {
  const char* name;
  /// out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i], i < width; with `round_quotient` the quotient is rounded too.
  /// out may be x.
  void (*rms_norm)(const float* x, const float* weight, std::int64_t width, float eps, bool round_quotient, bool bf16,
                   float* out);
  /// Rotates the pairs (x[i], x[i + half]) by the angles of cos and sin [half]; products are rounded too.
  void (*rotate)(float* x, const float* cos, const float* sin, std::int64_t half, bool bf16);
  /// gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + e^-x); silu is rounded too.
  void (*silu_mul)(float* gate, const float* up, std::int64_t count, bool bf16);
  /// The same with GELU in its tanh form: x / (1 + e^-2z), z = sqrt(2 / pi) (x + 0.044715 x^3).
  void (*gelu_mul)(float* gate, const float* up, std::int64_t count, bool bf16);
  /// gate[i] = g / (1 + e^(-kGateSlope g)) * (u + 1) of g = gate[i], u = up[i], both clamped (kernels/gate.h); what
  /// the sigmoid takes and gives, its product with g, and u + 1 are rounded too.
  void (*clamped_mul)(float* gate, const float* up, std::int64_t count, bool bf16);
  /// x[i] += y[i].
  void (*add)(float* x, const float* y, std::int64_t count, bool bf16);
  /// maxima[b] = the largest of the b-th kLogitBlock of x [count], NaN if any of them is; the last block may be short.
  void (*block_maxima)(const float* x, std::int64_t count, float* maxima);
  /// sums[b] = the sum of e^((x[i] - top) * scale) over the same blocks, x <= top; summands below e^-87.3 are 0.
  void (*block_exp_sums)(const float* x, std::int64_t count, float top, float scale, float* sums);
};

extern const ElementwiseKernels kElementwisePortable, kElementwiseAvx2, kElementwiseAvx512;

/// The variant of isa().
const ElementwiseKernels& elementwise_kernels();

}  // namespace lowp::kernels::cpu
