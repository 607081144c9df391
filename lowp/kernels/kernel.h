// The seam between what is computed (ops) and how (one folder for each backend).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "lowp/formats/philox.h"
#include "lowp/formats/quantize.h"
#include "lowp/tensor/quantized.h"

namespace lowp::kernels {

/// One matrix on its way into a block format. Everything is validated; kernels do not check again.
struct QuantizeTask {
  TensorView x;  // f16, bf16 or f32 [m, k], finite unless the rule is mx or plain, or checked by the result
  formats::Scaling scaling = formats::Scaling::rceil;
  formats::GroupStats matrix;  // statistics of all of x (or of a larger set that shares them): for tensor-level scales
  QuantizedMatrix* out = nullptr;                 // tensors allocated, codebook and tensor_scale set
  std::optional<formats::Stochastic> stochastic;  // rounding by chance, which only the reference does
};

/// Statistics of rows and the place of the first value that is not finite.
struct MatrixStats {
  formats::GroupStats values;
  std::int64_t first_nonfinite = -1;  // row-major element index, -1 if there is none
};

/// A backend's cast kernels. Row ranges are multiples of format.group_rows (or end at m), so that work can be streamed.
struct CastKernels {
  const char* name;
  MatrixStats (*stats)(const TensorView& x, std::int64_t row_begin, std::int64_t row_end);
  /// False if a value of a group is not finite: then, unless the rule is mx or plain, the codes mean nothing.
  bool (*quantize)(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end);
  /// Values of rows, rounded to `output` (f32 or bf16), into out [row_end - row_begin, k].
  void (*dequantize)(const QuantizedMatrix& in, DType output, std::int64_t row_begin, std::int64_t row_end,
                     std::byte* out);
  /// For each row the sums of x^2 and (x - value)^2 in double, values in f32; into signal and noise
  /// [row_end - row_begin].
  void (*errors)(const TensorView& x, const QuantizedMatrix& in, std::int64_t row_begin, std::int64_t row_end,
                 double* signal, double* noise);
};

/// Whether LOWP_FORCE_BACKEND=ref asks for the scalar oracle in place of every fast kernel. Throws Error(usage) on any
/// other value but the empty one.
bool reference_backend();

/// Parameters of the group that holds element (row, column), read back from a quantized matrix.
formats::GroupParams group_params(const QuantizedMatrix& matrix, std::int64_t group_row, std::int64_t group_col);

}  // namespace lowp::kernels
