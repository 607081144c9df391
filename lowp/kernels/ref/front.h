// What a GPU computes in front of a cast, in scalar code: the casts of ops on these values are what the fused kernels
// of kernels/cuda must reproduce to the bit.
#pragma once

#include "lowp/tensor/tensor.h"

namespace lowp::kernels::ref {

/// x [m, k] / sqrt(mean(x^2) + eps) * weight [k], in x's dtype; with `round_quotient` the quotient is rounded too. The
/// squares are added as kernels/front.h says. k is a multiple of 8, at most kMostNorm.
Tensor rms_norm(const TensorView& x, const TensorView& weight, float eps, bool round_quotient);

/// silu(gate) * up, both [m, k], in their dtype; silu is rounded too.
Tensor silu_mul(const TensorView& gate, const TensorView& up);

/// max(x, 0), never -0; NaN stays.
Tensor relu(const TensorView& x);

/// Heads on their way into fp8 attention (torchao-spec 6).
struct HeadsCast {
  std::int64_t batch = 1, seq = 1, heads = 1, dim = 64;  // dim 64, 128 or 256
  std::int64_t heads_per_scale = 1;                      // of queries: heads / kv_heads
  const float* cos = nullptr;                            // [seq, dim / 2]; null: no rotation (values)
  const float* sin = nullptr;
  bool interleaved = false;  // pairs (2i, 2i + 1) instead of (i, i + dim / 2)
  bool hadamard = false;     // an orthonormal Hadamard transform of each head after the rotation
};

/// x [batch, seq, heads, dim] to e4m3 codes [batch, heads, seq, dim] and descales f32 [batch, heads / heads_per_scale].
/// A scale is 448 / amax of the unrounded values, a descale amax / 448, both 1 where amax <= 1e-12; what is scaled and
/// rounded to e4m3 are the values rounded to x's dtype.
struct HeadsResult {
  Tensor codes, descale;
};
HeadsResult rope_cast(const TensorView& x, const HeadsCast& heads);

}  // namespace lowp::kernels::ref
