// Weights into the layout of gemm_packed_layout.h, on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowp/kernels/cuda/gemm_packed_layout.h"
#include "lowp/tensor/quantized.h"

namespace lowp::kernels::cuda {

/// A weight [n, k] in host memory, ready to be copied to a device.
struct PackedWeight {
  Codes codes = Codes::bf16;
  Scales scales = Scales::none;
  std::int64_t n = 0, k = 0;
  std::vector<std::uint8_t> units;  // [row_tiles(), units_along_k(), unit_bytes]
  std::vector<float> row_scale;     // [row_tiles() * 16]: multiplies the sum

  std::int64_t row_tiles() const { return ceil_div<std::int64_t>(n, kUnitRows); }
  std::int64_t units_along_k() const { return round_up<std::int64_t>(k, padded_depth(codes)) / unit_depth(codes); }
  std::int64_t unit_size() const { return unit_bytes(codes, scales); }
};

/// Packs a weight whose format has a layout of its own; nullopt if it has none, with the reason in *why: zero points,
/// tables, scales that are not bf16, a row whose powers of two span more than bf16 holds. Such a weight is dequantized
/// and packed as bf16.
std::optional<PackedWeight> pack_weight(const QuantizedMatrix& weight, std::string* why);

/// Packs an mxfp4 weight for e4m3 activations, its powers of two folded into the codes; nullopt, with the reason, for
/// other formats and where the powers of a row span more than 11 octaves.
std::optional<PackedWeight> pack_folded_weight(const QuantizedMatrix& weight, std::string* why);

/// Packs a weight of bf16 values [n, k].
PackedWeight pack_bf16_weight(const TensorView& weight);

/// The outputs of two weights of one shape and layout by turns, eight of `even` and eight of `odd`: what a lane of the
/// tensor cores has of a unit are the same outputs of both.
PackedWeight by_eights(const PackedWeight& even, const PackedWeight& odd);

}  // namespace lowp::kernels::cuda
