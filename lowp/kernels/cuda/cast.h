// Casts on the GPU: one or both orientations of [experts, m, k] into a block format, scales plain or in tiles.
// All pointers are to device memory; everything is enqueued, nothing waits.
#pragma once

#include <optional>

#include "lowp/formats/block.h"
#include "lowp/formats/scale_layout.h"
#include "lowp/kernels/cuda/cast_args.h"

namespace lowp::kernels::cuda {

/// Where the result of one orientation goes. `codes` as in QuantizedMatrix: [experts, m, k] (k/2 bytes for 4-bit
/// floats) along k, [experts, k, m] (m/2) along m. Scales along k: [experts, m, groups]; along m: [experts, groups, k]
/// in layout `rows`, as torchao's kernels write them, else tiles of the logical [k, groups].
struct CastResult {
  void* codes = nullptr;
  void* scale = nullptr;                                     // e8m0 or e4m3 bytes, or f32
  void* zero_point = nullptr;                                // i8 or f32, shaped as the scales in layout `rows`
  formats::ScaleLayout layout = formats::ScaleLayout::rows;  // others hold one-byte scales
  const formats::ScaleGroup* groups = nullptr;               // of ScaleMap::groups(), copied to the device
  std::int64_t group_count = 0;
};

struct CastTask {
  const void* x = nullptr;  // f16, bf16 or f32 [experts, m, k]; finite unless the rule is mx or plain
  formats::Elem input = formats::Elem::bf16;
  std::int64_t experts = 1, m = 0, k = 0;
  formats::BlockSpec format;
  formats::Scaling scaling = formats::Scaling::rceil;
  /// Tensor-level scales (group_rows == 0, or two levels) come from amax [experts], which amax() below writes, or, if
  /// that is null, from static_amax.
  const MatrixAmax* amax = nullptr;
  float static_amax = 0;
  const float* codebook = nullptr;  // [experts, 16]; codebook formats
  /// What is computed from x and cast in its place. norm and activations: along k; of one expert for the norm. The
  /// Hadamard transform runs along the groups; amax, where the format needs one, is that of the transformed matrix.
  FrontArgs front;
  /// Rounding by chance (formats::rounds_stochastically): the code at place i of a result takes random_bits of i.
  std::optional<formats::Stochastic> stochastic;
  CastResult along_k, along_m;  // without codes: not wanted
};

/// Casts. Shapes that do not fit the format are the caller's fault (formats::misfit). Padding of tiled layouts is
/// zeroed. Any shape and alignment works; the fast kernels want k a multiple of 8 and 16-byte aligned pointers along k,
/// and m a multiple of 32 and k even along m. A norm or an activation in front needs those, and has kernels for mxfp8
/// (e4m3), mxfp4, nvfp4, float8 of rows and of 128 values, and int8 of rows, a norm for k <= kMostNorm (8192 from
/// f32): Error(unsupported) for others.
void cast(const CastTask& task, StreamHandle stream);

/// Writes the largest magnitude of each expert of x [experts, size].
void amax(const void* x, formats::Elem input, std::int64_t experts, std::int64_t size, MatrixAmax* out,
          StreamHandle stream);

/// The same of the Hadamard transform of x [experts, m, k], of runs along m or k.
void rotated_amax(const void* x, formats::Elem input, std::int64_t experts, std::int64_t m, std::int64_t k,
                  bool along_m, MatrixAmax* out, StreamHandle stream);

/// amax() and cast() in one launch, each block waiting for the others' magnitudes in between: for a two-level format
/// along k into layout `rows`, of one matrix. False, and nothing done, if the shape has no such kernel.
bool amax_and_cast(const CastTask& task, MatrixAmax* amax, StreamHandle stream);

/// Index of the first NaN or infinity of x [size], or -1, into *out (device memory). Slow: for error messages.
void first_nonfinite(const void* x, formats::Elem input, std::int64_t size, std::int64_t* out, StreamHandle stream);

/// One orientation back to values: out f32, bf16 or f16 [experts, m, k] from along_k's result of a task.
/// `tensor_scale` [experts]: of two-level formats.
struct DequantizeTask {
  formats::BlockSpec format;
  std::int64_t experts = 1, m = 0, k = 0;
  const void* codes = nullptr;
  const void* scale = nullptr;
  const void* zero_point = nullptr;
  const float* tensor_scale = nullptr;
  const float* codebook = nullptr;
  formats::Elem output = formats::Elem::f32;
  void* out = nullptr;
};
void dequantize(const DequantizeTask& task, StreamHandle stream);

/// Moves one-byte scales [experts, h, w] into a layout of `bytes` bytes (padding zeroed), and back.
void to_layout(const std::uint8_t* in, std::int64_t experts, const formats::ScaleGrid& grid, std::uint8_t* out,
               std::int64_t bytes, StreamHandle stream);
void from_layout(const std::uint8_t* in, std::int64_t experts, const formats::ScaleGrid& grid, std::uint8_t* out,
                 StreamHandle stream);

}  // namespace lowp::kernels::cuda
