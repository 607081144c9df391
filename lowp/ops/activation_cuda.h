// What becomes of a product's activations on a CUDA device.
#pragma once

#include "lowp/formats/recipe.h"
#include "lowp/kernels/cuda/experts.h"
#include "lowp/ops/operands.h"

namespace lowp::ops {

/// Whether codes of a weight are multiplied with an activation's by dense tiles.
bool multiply_codes(const formats::BlockFormat& weight, const formats::BlockFormat& activation);

/// Whether codes are the operands, and their scale comes with the sum.
bool scales_of_rows(const formats::BlockSpec& activation);

/// Whether codes are e4m3 with a scale for each row or one for all.
bool rows_of_e4m3(const formats::BlockSpec& format);

/// Whether e4m3 with a scale for each row holds an activation's rows of k values as nearly as `operands` wants.
bool holds_as_e4m3(const formats::Activation& activation, std::int64_t k, Operands operands);

/// Rows [m, k] of bf16 on an activation's grid: their codes, or the values of these, which are multiplied in bf16.
/// Scales of rows and of two levels stay beside them, and multiply the sum.
class CudaActivation {
 public:
  CudaActivation(const formats::Activation& activation, std::int64_t k) : activation_(activation), k_(k) {}

  const formats::BlockFormat& format() const { return activation_.format; }
  std::int64_t k() const { return k_; }
  /// Whether all rows of a call, or of an expert, share a scale.
  bool shares_scale() const { return activation_.scope == formats::Scope::tensor; }

  /// Parts of the workspace, at multiples of 256 bytes from `base`, which may be null to know the bytes.
  struct Parts {
    std::byte *codes, *scale, *zero_point, *amax, *values;  // values: null where codes are wanted
    std::size_t bytes;
  };
  Parts place(std::int64_t rows, bool as_codes, void* base) const;
  /// Bytes of a row in the parts.
  std::size_t code_bytes() const;
  std::size_t scale_bytes() const;
  std::size_t zero_point_bytes() const;

  /// Enqueues codes, or values, of x bf16 [rows, k], each row by itself.
  void prepare(const void* x, std::int64_t rows, const Parts& to, kernels::cuda::StreamHandle stream) const;
  /// The same of the rows at places, those of an expert with the scale that they share.
  void prepare_shared(const void* x, const kernels::cuda::RoutedRows& rows, const Parts& to,
                      kernels::cuda::StreamHandle stream) const;

  /// What multiplies the sum of row i: scale[i * step]; null where nothing does.
  struct Multiplier {
    const float* scale = nullptr;
    int step = 1;
  };
  Multiplier multiplier(const Parts& parts) const;

 private:
  bool scale_of_row() const;
  void cast(const void* x, std::int64_t rows, const Parts& to, kernels::cuda::StreamHandle stream,
            const kernels::cuda::RoutedRows* sharing) const;

  formats::Activation activation_;
  std::int64_t k_;
};

/// Enqueues parts.values bf16 [rows, k], what codes and scales are in bf16, without the scales that multiply the sum.
void make_values(const formats::BlockFormat& format, std::int64_t rows, std::int64_t k,
                 const CudaActivation::Parts& parts, kernels::cuda::StreamHandle stream);

}  // namespace lowp::ops
