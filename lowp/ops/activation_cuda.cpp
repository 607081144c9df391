#include "lowp/ops/activation_cuda.h"

#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/gemm_rebase.h"
#include "lowp/kernels/cuda/row_rebase.h"

namespace lowp::ops {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::ZeroPoint;

bool multiply_codes(const BlockFormat& w, const BlockFormat& a) {
  if (w.element == Elem::e4m3 && a.element == Elem::e4m3 && w.rule == Rule::float8 && a.rule == Rule::float8)
    return (w.group_cols == 0) == (a.group_cols == 0);
  return w.element == Elem::int8 && a.element == Elem::int8 && w.group_cols == 0 && a.group_cols == 0 &&
         w.zero_point == ZeroPoint::none && a.zero_point != ZeroPoint::floating && w.rule == Rule::symmetric;
}

bool scales_of_rows(const formats::BlockSpec& a) { return a.group_cols == 0 && a.zero_point == ZeroPoint::none; }

bool rows_of_e4m3(const formats::BlockSpec& f) {
  return f.element == Elem::e4m3 && f.rule == Rule::float8 && f.group_cols == 0;
}

bool holds_as_e4m3(const formats::Activation& a, std::int64_t k, Operands operands) {
  if (rows_of_e4m3(a.format)) return true;
  if (k > cuda::kMostRebasedRow || operands == Operands::exact || a.scope != formats::Scope::token) return false;
  return cuda::rebases(a.format) || (a.format.rule == Rule::nvfp4 && operands == Operands::rounded);
}

// Scales of a whole matrix: every row is one.
bool CudaActivation::scale_of_row() const { return format().tensor_scale || format().group_rows == 0; }

std::size_t CudaActivation::code_bytes() const {
  return static_cast<std::size_t>(format().two_codes_a_byte() ? k_ / 2 : k_);
}

std::size_t CudaActivation::scale_bytes() const {
  return static_cast<std::size_t>(format().scale_cols(k_) * formats::info(format().scale).bits / 8);
}

std::size_t CudaActivation::zero_point_bytes() const {
  if (format().zero_point == ZeroPoint::none) return 0;
  return static_cast<std::size_t>(format().scale_cols(k_)) * (format().zero_point == ZeroPoint::integer ? 1 : 4);
}

CudaActivation::Parts CudaActivation::place(std::int64_t rows, bool as_codes, void* workspace) const {
  Parts parts{};
  const auto count = static_cast<std::size_t>(rows);
  const auto take = [&](std::byte*& part, std::size_t bytes) {
    part = static_cast<std::byte*>(workspace) + parts.bytes;
    parts.bytes += round_up<std::size_t>(bytes, 256);
  };
  take(parts.codes, count * code_bytes());
  take(parts.scale, count * scale_bytes());
  if (zero_point_bytes()) take(parts.zero_point, count * zero_point_bytes());
  take(parts.amax, count * sizeof(cuda::MatrixAmax));
  if (!as_codes) take(parts.values, count * static_cast<std::size_t>(k_) * 2);
  return parts;
}

void CudaActivation::cast(const void* x, std::int64_t rows, const Parts& to, cuda::StreamHandle stream,
                          const cuda::RoutedRows* sharing) const {
  constexpr std::int64_t kMostMatrices = 32768;  // of a launch
  const BlockFormat& f = format();
  auto* const amax = reinterpret_cast<cuda::MatrixAmax*>(to.amax);
  const std::int64_t at_once = scale_of_row() ? kMostMatrices : rows;
  const auto each = [&](const auto& work) {
    for (std::int64_t first = 0; first < rows; first += at_once)
      work(first, std::min(at_once, rows - first), static_cast<const std::uint16_t*>(x) + first * k_);
  };
  if (scale_of_row())
    each([&](std::int64_t first, std::int64_t count, const void* from) {
      cuda::amax(from, Elem::bf16, count, k_, amax + first, stream);
    });
  if (sharing) cuda::share_amax(*sharing, amax, stream);
  each([&](std::int64_t first, std::int64_t count, const void* from) {
    const auto offset = static_cast<std::size_t>(first);
    cuda::CastTask task;
    task.x = from;
    task.experts = scale_of_row() ? count : 1;
    task.m = scale_of_row() ? 1 : count;
    task.k = k_;
    task.format = f;
    task.along_k.codes = to.codes + offset * code_bytes();
    task.along_k.scale = to.scale + offset * scale_bytes();
    if (to.zero_point) task.along_k.zero_point = to.zero_point + offset * zero_point_bytes();
    if (scale_of_row()) task.amax = amax + first;
    cuda::cast(task, stream);
  });
  if (to.values) make_values(f, rows, k_, to, stream);
}

void make_values(const BlockFormat& format, std::int64_t rows, std::int64_t k, const CudaActivation::Parts& parts,
                 cuda::StreamHandle stream) {
  cuda::DequantizeTask values;
  values.format = format;
  values.m = rows;
  values.k = k;
  values.codes = parts.codes;
  values.scale = parts.scale;
  values.zero_point = parts.zero_point;
  values.output = Elem::bf16;
  values.out = parts.values;
  if (scales_of_rows(format)) values.format.rule = Rule::plain;  // their scale multiplies the sum
  values.format.tensor_scale = false;                            // and so does this
  cuda::dequantize(values, stream);
}

void CudaActivation::prepare(const void* x, std::int64_t rows, const Parts& to, cuda::StreamHandle stream) const {
  if (rows) cast(x, rows, to, stream, nullptr);
}

void CudaActivation::prepare_shared(const void* x, const cuda::RoutedRows& rows, const Parts& to,
                                    cuda::StreamHandle stream) const {
  if (rows.rows) cast(x, rows.places(), to, stream, &rows);
}

CudaActivation::Multiplier CudaActivation::multiplier(const Parts& parts) const {
  if (scales_of_rows(format())) return {reinterpret_cast<const float*>(parts.scale), 1};
  if (format().tensor_scale)
    return {&reinterpret_cast<const cuda::MatrixAmax*>(parts.amax)->tensor_scale,
            static_cast<int>(sizeof(cuda::MatrixAmax) / sizeof(float))};
  return {};
}

}  // namespace lowp::ops
