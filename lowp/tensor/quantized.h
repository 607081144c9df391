// A matrix in a block format: the one in-memory form between kernels, algorithms, files and models.
#pragma once

#include "lowp/formats/block.h"
#include "lowp/tensor/tensor.h"

namespace lowp {

/// An [m, k] matrix quantized along k.
struct QuantizedMatrix {
  formats::BlockFormat format;
  std::int64_t m = 0, k = 0;
  formats::Elem input = formats::Elem::bf16;  // dtype of the values it was made from; affine scales are exact in it

  Tensor codes;            // u8/i8 [m, k], one code a byte; e2m1: u8 [m, k/2], element 2i in the low nibble
  Tensor scale;            // f32, f8_e8m0 or f8_e4m3 [scale_rows(m), scale_cols(k)]; empty for plain formats
  Tensor zero_point;       // i8 or f32, shape of scale; empty unless the format has one
  float tensor_scale = 1;  // two-level formats
  Tensor codebook;         // f32 [16]; codebook formats

  // Activation order (GPTQ): codes and groups stand in the order in which the columns were quantized, so that a group
  // is always group_cols neighbours. Stored column j is column column_order[j] of the weight; groups keep their columns
  // ascending. i32 [k], or empty: as they come.
  Tensor column_order;
  // Smoothing (AWQ): column j of the input is multiplied by pre_scale[j] before it is quantized and multiplied by the
  // weight; the values of the matrix do not contain it. f32 [k], or empty.
  Tensor pre_scale;
};

}  // namespace lowp
