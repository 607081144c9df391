// The fast cast kernels by family: each launches one kernel, or returns false if the family has none for the arguments.
#pragma once

#include "lowp/kernels/cuda/cast_args.h"

namespace lowp::kernels::cuda {

struct DequantizeTask;
struct HeadsTask;

/// Arguments of the kernel that casts anything, one warp a group, by the definitions of formats/quantize.h.
struct AnyArgs {
  const void* x = nullptr;
  formats::Elem input = formats::Elem::bf16;
  // The matrix as groups see it: values of a group are neighbours along `columns`.
  std::int64_t experts = 1, rows = 0, columns = 0;
  std::int64_t row_stride = 0, column_stride = 0;  // of x, in values
  formats::BlockSpec format;
  formats::Scaling scaling = formats::Scaling::rceil;
  bool hadamard = false;    // kernels::hadamard16 of runs along `columns` first
  bool stochastic = false;  // rounding by chance, with bits by the place in the result
  formats::Stochastic random;
  void* codes = nullptr;
  void* scale = nullptr;
  void* zero_point = nullptr;
  bool transposed_scales = false;  // layout rows: [experts, groups, rows]
  formats::ScaleGrid place;
  const MatrixAmax* amax = nullptr;
  float static_amax = 0;
  const float* codebook = nullptr;
};
void launch_any(const AnyArgs& args, StreamHandle stream);

bool launch_mx_rows(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
bool launch_nvfp4_rows(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
bool launch_float8(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
bool launch_integer(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
/// Rounding by chance, and Rule::nvfp4_training with or without a Hadamard transform in front.
bool launch_training_rows(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
bool launch_training_columns(const ColumnsArgs& args, formats::Elem input, int experts, StreamHandle stream);
/// Front::silu_mul and Front::relu.
bool launch_activation(const RowsArgs& args, formats::Elem input, int experts, StreamHandle stream);
/// Front::rms_norm, of one expert.
bool launch_norm(const RowsArgs& args, formats::Elem input, StreamHandle stream);

/// Two levels of scales, whose second is found in the same launch and left in *found.
bool launch_amax_and_cast(const RowsArgs& args, formats::Elem input, MatrixAmax* found, StreamHandle stream);

bool launch_columns(const ColumnsArgs& args, formats::Elem input, int experts, StreamHandle stream);
/// Values of codes whose rows and groups are whole eights.
bool launch_dequantize(const DequantizeTask& task, StreamHandle stream);
void launch_rope(const HeadsTask& task, StreamHandle stream);
/// Both orientations from one read.
bool launch_both(const RowsArgs& rows, const ColumnsArgs& columns, formats::Elem input, int experts,
                 StreamHandle stream);

}  // namespace lowp::kernels::cuda
