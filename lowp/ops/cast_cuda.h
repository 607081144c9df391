// Casts of tensors in host memory on a CUDA device: copied there, cast in as few reads as their axes need, copied back.
#pragma once

#include "lowp/formats/scale_layout.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {

/// One orientation of a cast, as kernels/cuda/cast.h lays it out: codes [experts, m, k] along k, [experts, k, m] along
/// m; scales in the wanted layout, zero points as scales in layout `rows` (along m: [experts, groups, k]).
struct PlacedCast {
  Tensor codes, scale, zero_point;
  std::vector<float> tensor_scale;  // [experts]; two-level formats
};

struct CudaCastRequest {
  TensorView x;  // f16, bf16 or f32 [m, k] or [experts, m, k]
  formats::BlockFormat format;
  /// scaling, name, device, shared and stochastic of each expert; a NaN or an infinity is refused as in quantize().
  /// Rounding by chance counts the codes of a result: the first of expert e is e * m * k.
  CastOptions options;
  bool along_k = true, along_m = false;
  bool hadamard = false;  // hadamard16() of runs along the groups first
  /// Of the logical scale matrix of each orientation, [m, groups] and [k, groups]; null: layout `rows`.
  const formats::ScaleMap* map_k = nullptr;
  const formats::ScaleMap* map_m = nullptr;
  std::span<const float> codebook;  // [experts, 16]; codebook formats, one orientation
};

struct CudaCast {
  PlacedCast along_k, along_m;
};

/// Throws Error(unsupported) naming options.name for super-blocks, for rounding by chance where the format has none,
/// and for a Hadamard transform where 16 does not divide the groups' axis or options.shared is given.
CudaCast cast_on_cuda(const CudaCastRequest& request);

/// quantize() of ops/cast.h on options.device.
QuantizedMatrix quantize_on_cuda(const TensorView& x, const formats::BlockFormat& format, const CastOptions& options,
                                 std::span<const float> codebook);

/// dequantize() of ops/cast.h on a CUDA device.
Tensor dequantize_on_cuda(const QuantizedMatrix& matrix, DType output, const Device& device);

}  // namespace lowp::ops
