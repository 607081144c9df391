// What the cast kernels are launched with: filled by cast.cpp, read by the kernels. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "lowp/formats/philox.h"
#include "lowp/formats/quantize.h"
#include "lowp/formats/scale_layout.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// Division of 31-bit numbers by a number that the host knows: a high product and a shift.
struct FastDivide {
  std::uint32_t divisor = 1, factor = 0, shift = 0;

  FastDivide() = default;
  explicit FastDivide(std::uint32_t by) : divisor(by) {
    while ((std::uint64_t{1} << shift) < by) ++shift;
    factor = static_cast<std::uint32_t>(((std::uint64_t{1} << (31 + shift)) + by - 1) / by);
  }
  LOWP_HD std::uint32_t operator()(std::uint32_t n) const {
    return static_cast<std::uint32_t>((std::uint64_t{n} * factor) >> 31 >> shift);
  }
};

/// The largest magnitude of a matrix and the two-level scale that follows from it, as amax() leaves them.
struct alignas(16) MatrixAmax {
  std::uint32_t bits = 0;     // of the f32; NaN or infinity if there is one
  std::uint32_t arrived = 0;  // blocks that have added theirs
  float tensor_scale = 1;     // formats::nvfp4_tensor_scale
  float reciprocal = 1;       // 1 / tensor_scale
};

/// What is computed from x as it is read, and cast in its place.
enum class Front : std::uint8_t {
  none,
  rms_norm,  // x / sqrt(mean(x^2) + eps) * other[k], along rows
  silu_mul,  // silu(x) * other, of x's shape
  relu,      // max(x, 0)
  hadamard,  // kernels::hadamard16 of each 16 values along the groups
};

/// A front end and its operands, in the dtype and rounded where kernels/ref/front.h rounds.
struct FrontArgs {
  Front kind = Front::none;
  bool round_quotient = true;  // of rms_norm
  float eps = 0;               // of rms_norm
  const void* other = nullptr;
};

/// What the launch knows and a codec does not.
struct CodecArgs {
  formats::BlockSpec format;
  formats::Scaling scaling = formats::Scaling::rceil;
  formats::CodeRange range{};  // of integer formats
  std::uint32_t mx_bump = 0;   // fast_codec.h: mx_bump(element, scaling)
  float tensor_scale = 1;      // of two-level formats,
  float reciprocal = 1;        // 1 / tensor_scale,
  bool all_zero = false;       // and whether the matrix is all zero
  bool given_scale = false;    // values may exceed what the scale was chosen for
  bool stochastic = false;     // rounding by chance,
  formats::Stochastic random;  // with these bits, by the code's place in the result
};

/// Casts along rows of [experts, m, k] with k a multiple of 8: the chunks are runs of eight values.
struct RowsArgs {
  const void* x = nullptr;
  FrontArgs front;
  void* codes = nullptr;
  void* scale = nullptr;
  void* zero_point = nullptr;
  const MatrixAmax* amax = nullptr;  // [experts], for tensor-level scales;
  std::uint32_t static_amax = 0;     // or f32 bits, if null
  std::uint32_t chunks = 0;          // of an expert
  std::uint32_t groups = 0;          // of an expert
  std::uint32_t groups_per_row = 0;
  FastDivide row_of_group;  // by groups_per_row
  std::uint32_t row_chunks = 0;
  std::uint32_t rows = 0;
  int lanes = 0;             // lanes that share a group
  bool whole_tiles = false;  // each expert's scales are tiles of its own, at a 16-byte aligned address
  formats::ScaleGrid place;
  CodecArgs codec;
};

/// Casts along columns of [experts, m, k], m a multiple of 32 and k even; codes come out as [experts, k, m].
struct ColumnsArgs {
  const void* x = nullptr;
  bool hadamard = false;
  void* codes = nullptr;
  std::uint8_t* scale = nullptr;  // rows: [experts, m / group, k]; tiled: of the logical [k, m / group]
  const MatrixAmax* amax = nullptr;
  std::uint32_t m = 0, k = 0;
  formats::ScaleGrid place;
  CodecArgs codec;
};

}  // namespace lowp::kernels::cuda
