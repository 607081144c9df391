// `lowp cast`: every matrix of a safetensors file into a block format, and back.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lowp/formats/scale_layout.h"
#include "lowp/quant/quantize.h"

namespace lowp::quant {

/// Along which dimension blocks run: the last (k), the second to last (n, stored transposed), or two results.
enum class Axis { k, n, both };

struct CastFileRequest {
  std::string input, output;
  std::string format;  // decoding: only for files without lowp's metadata
  formats::Scaling scaling = formats::Scaling::floor;
  Axis axis = Axis::k;
  formats::ScaleLayout layout = formats::ScaleLayout::rows;
  std::string group_ends;  // name of a tensor of IN, I32 or I64 [groups]: exclusive ends in rows (m groups) or in
                           // elements along the block axis (k groups)
  std::optional<std::uint64_t> seed;  // of stochastic rounding; none: to the nearest
  bool hadamard = false;              // ops::hadamard16 of runs of 16 along the blocks first
  ops::Device device;                 // where to compute
};

struct CastReport {
  std::string name;
  Shape shape;
  std::uint64_t bytes = 0;     // written for it
  std::optional<double> sqnr;  // dB; not for inputs with NaN or infinities, not when decoding
};

struct CastFileReport {
  std::string format;
  std::vector<CastReport> tensors;
  std::vector<std::string> skipped;  // "name (I32 [4])": neither floating nor 2-D or 3-D
};

/// Writes T.data, T.scale and, where the format has them, T.tensor_scale, T.zero_point, T.codebook for each f16, bf16
/// or f32 tensor T [n, k] or [experts, n, k]; with Axis::both also T.data_n, T.scale_n and so on. Throws Error naming
/// file and tensor.
CastFileReport cast_file(const CastFileRequest& request);

/// The inverse: writes each T as `dtype` (f32 or bf16).
CastFileReport decode_file(const CastFileRequest& request, DType dtype);

}  // namespace lowp::quant
