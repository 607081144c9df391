#include "lowp/kernels/ref/cast.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lowp/kernels/group.h"

namespace lowp::kernels::ref {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::GroupParams;

MatrixStats stats(const TensorView& x, std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t k = x.shape.back();
  MatrixStats result;
  std::vector<float> row(static_cast<std::size_t>(k));
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    load_f32(x, r * k, k, row.data());
    for (std::int64_t c = 0; c < k; ++c) {
      if (!is_finite(row[c]) && result.first_nonfinite < 0) result.first_nonfinite = r * k + c;
      result.values.add(row[c]);
    }
  }
  return result;
}

// Values of one row, rounded to `output`.
void decode_row(const QuantizedMatrix& in, Elem output, std::int64_t row, float* out) {
  const BlockFormat& format = in.format;
  const std::int64_t width = format.group_cols == 0 || !format.has_scale() ? in.k : format.group_cols;
  const std::int64_t scale_row = format.group_rows == 0 ? 0 : row / format.group_rows;
  GroupParams p;
  for (std::int64_t c = 0; c < in.k; ++c) {
    if (c % width == 0) p = group_params(in, scale_row, c / width);
    const std::uint32_t code = load_code(in, row * in.k + c);
    out[c] = format.rule == formats::Rule::codebook
                 ? formats::round_to(output, in.codebook.as<float>()[code % 16] * p.scale)
                 : formats::decode_element(format, output, p, in.tensor_scale, code);
  }
}

void dequantize(const QuantizedMatrix& in, DType output, std::int64_t row_begin, std::int64_t row_end, std::byte* out) {
  std::vector<float> values(static_cast<std::size_t>(in.k));
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    decode_row(in, element_of(output), r, values.data());
    if (output == DType::f32) {
      std::memcpy(out, values.data(), values.size() * 4);
      out += values.size() * 4;
      continue;
    }
    for (const float value : values) {
      const auto code = static_cast<std::uint16_t>(float_bits(value) >> 16);
      std::memcpy(out, &code, 2);
      out += 2;
    }
  }
}

void errors(const TensorView& x, const QuantizedMatrix& in, std::int64_t row_begin, std::int64_t row_end,
            double* signal, double* noise) {
  std::vector<float> original(static_cast<std::size_t>(in.k)), values(static_cast<std::size_t>(in.k));
  for (std::int64_t r = row_begin; r < row_end; ++r, ++signal, ++noise) {
    load_f32(x, r * in.k, in.k, original.data());
    decode_row(in, Elem::f32, r, values.data());
    *signal = *noise = 0;
    for (std::int64_t c = 0; c < in.k; ++c) {
      const double value = original[c], error = value - static_cast<double>(values[c]);
      *signal += value * value;
      *noise += error * error;
    }
  }
}

}  // namespace

const CastKernels kCast = {"ref", stats, quantize_groups, dequantize, errors};

}  // namespace lowp::kernels::ref
