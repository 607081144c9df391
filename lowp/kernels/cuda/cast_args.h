// What the cast kernels are launched with: filled by cast.cpp, read by the kernels. Pointers are to device memory.
#pragma once

#include <cstdint>

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

/// What the launch knows and a codec does not.
struct CodecArgs {
  formats::BlockSpec format;
  formats::Scaling scaling = formats::Scaling::rceil;
  formats::CodeRange range{};   // of integer formats
  std::uint32_t mx_bump = 0;    // fast_codec.h: mx_bump(element, scaling)
  float tensor_scale = 1;       // of two-level formats,
  float reciprocal = 1;         // and 1 / tensor_scale
  bool given_scale = false;     // values may exceed what the scale was chosen for
};

/// Casts along rows of [experts, m, k] with k a multiple of 8: the chunks are runs of eight values.
struct RowsArgs {
  const void* x = nullptr;
  void* codes = nullptr;
  void* scale = nullptr;
  void* zero_point = nullptr;
  const std::uint32_t* amax = nullptr;  // [experts] f32 bits of the largest magnitude, for tensor-level scales;
  std::uint32_t static_amax = 0;        // or these, if null
  std::uint32_t chunks = 0;             // of an expert
  std::uint32_t groups = 0;             // of an expert
  std::uint32_t groups_per_row = 0;
  FastDivide row_of_group;  // by groups_per_row
  std::uint32_t row_chunks = 0;
  std::uint32_t rows = 0;
  int lanes = 0;  // lanes that share a group
  formats::ScaleGrid place;
  CodecArgs codec;
};

/// Casts along columns of [experts, m, k], m a multiple of 32 and k even; codes come out as [experts, k, m].
struct ColumnsArgs {
  const void* x = nullptr;
  void* codes = nullptr;
  std::uint8_t* scale = nullptr;  // rows: [experts, m / group, k]; tiled: of the logical [k, m / group]
  const std::uint32_t* amax = nullptr;
  std::uint32_t m = 0, k = 0;
  formats::ScaleGrid place;
  CodecArgs codec;
};

}  // namespace lowp::kernels::cuda
