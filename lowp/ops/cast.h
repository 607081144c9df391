// Casting a matrix into a block format and back.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lowp/kernels/kernel.h"
#include "lowp/ops/device.h"

namespace lowp::ops {

struct CastOptions {
  formats::Scaling scaling = formats::Scaling::rceil;  // MX formats only
  std::optional<formats::GroupStats> shared;      // statistics that replace the matrix's own in tensor-level scales
  bool refuse_nonfinite = false;                  // also in MX formats
  std::optional<formats::Stochastic> stochastic;  // rounding by chance instead of to the nearest: floats under a scale
  std::string name = "tensor";                    // in messages
  Device device;                                  // where quantize() computes
  std::function<void(std::int64_t rows)> rows_read;  // called when the first `rows` rows of x are no longer needed
};

/// An allocated, empty result for an [m, k] matrix. Throws Error(unsupported) naming `name` if it does not fit the
/// format.
QuantizedMatrix allocate(const formats::BlockFormat& format, formats::Elem input, std::int64_t m, std::int64_t k,
                         const std::string& name);

/// Smallest and largest value of x [m, k]. Throws Error(bad_input) naming tensor and index at the first NaN or infinity
/// unless allow_nonfinite.
formats::GroupStats stats(const TensorView& x, const CastOptions& options, bool allow_nonfinite = false);

/// Quantizes x, f16, bf16 or f32 [m, k], along k. NaN and infinities are an Error(bad_input) unless the format is plain
/// or MX, which poisons their blocks. Codebook formats need `codebook` [16]. Throws Error(unsupported) if the format
/// cannot be rounded as options.stochastic asks.
QuantizedMatrix quantize(const TensorView& x, const formats::BlockFormat& format, const CastOptions& options,
                         std::span<const float> codebook = {});

/// The same into `out`, as allocate() made it for this format and shape; what it held before is overwritten.
void quantize_into(QuantizedMatrix& out, const TensorView& x, const CastOptions& options,
                   std::span<const float> codebook = {});

/// The values of a quantized matrix as f32 or bf16 [m, k], rounded as torchao's dequantize rounds; on the CPU also as
/// f16, which the f32 values are rounded to.
Tensor dequantize(const QuantizedMatrix& matrix, DType output, const Device& device = {});
/// The same on the CPU, into `out`, f32 or bf16 [m, k].
void dequantize_into(Tensor& out, const QuantizedMatrix& matrix);

/// Throws Error(unsupported) naming `name` if a format's values cannot be rounded by chance.
void check_stochastic(const formats::BlockFormat& format, const std::string& name);

/// x [.., k] with each run of 16 along k replaced by x diag(signs) H / 4, rounded to x's dtype: H the Hadamard matrix
/// in natural order, the sign vector torchao's default (torchao-spec 7.7). Throws Error(unsupported) unless 16 divides
/// k.
Tensor hadamard16(const TensorView& x, const std::string& name);

/// Signal-to-noise ratio in dB of a quantized matrix against the original: 20 log10(|x| / |x - q|), values of q in f32;
/// infinite for equal matrices, -infinity for an all-zero x that is not reproduced.
double sqnr(const TensorView& x, const QuantizedMatrix& matrix, const CastOptions& options);

}  // namespace lowp::ops
