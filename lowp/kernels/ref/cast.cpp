#include "lowp/kernels/ref/cast.h"

#include <vector>

namespace lowp::kernels::ref {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::GroupParams;
using formats::GroupStats;

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

void store_params(QuantizedMatrix& out, std::int64_t at, const GroupParams& p) {
  if (!out.format.has_scale()) return;
  if (formats::info(out.format.scale).bits > 8)
    out.scale.as<float>()[at] = p.scale;
  else
    out.scale.as<std::uint8_t>()[at] = static_cast<std::uint8_t>(p.scale_code);
  if (out.format.zero_point == formats::ZeroPoint::integer)
    out.zero_point.as<std::int8_t>()[at] = static_cast<std::int8_t>(p.zero_point);
  if (out.format.zero_point == formats::ZeroPoint::floating) out.zero_point.as<float>()[at] = p.zero_point;
}

// Integer codes are kept as signed bytes, everything else as it is; codes wider than a byte are plain f16, bf16 and
// f32.
void store_code(QuantizedMatrix& out, std::int64_t i, std::uint32_t code) {
  const auto& element = formats::info(out.format.element);
  if (out.format.two_codes_a_byte()) {
    std::uint8_t& byte = out.codes.as<std::uint8_t>()[i / 2];
    byte = static_cast<std::uint8_t>(i % 2 ? (byte & 0x0Fu) | (code << 4) : (byte & 0xF0u) | code);
  } else if (element.bits == 32) {
    out.codes.as<std::uint32_t>()[i] = code;
  } else if (element.bits == 16) {
    out.codes.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(code);
  } else {
    const bool sign_extend = !element.is_float() && element.is_signed;
    out.codes.as<std::uint8_t>()[i] =
        sign_extend ? static_cast<std::uint8_t>(static_cast<std::int8_t>(formats::decode(out.format.element, code)))
                    : static_cast<std::uint8_t>(code);
  }
}

std::uint32_t load_code(const QuantizedMatrix& in, std::int64_t i) {
  if (in.format.two_codes_a_byte()) return (in.codes.as<std::uint8_t>()[i / 2] >> (i % 2 * 4)) & 0xFu;
  switch (formats::info(in.format.element).bits) {
    case 32:
      return in.codes.as<std::uint32_t>()[i];
    case 16:
      return in.codes.as<std::uint16_t>()[i];
    default:
      return in.codes.as<std::uint8_t>()[i];
  }
}

void quantize(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end) {
  QuantizedMatrix& out = *task.out;
  const BlockFormat& format = out.format;
  const Elem input = out.input;
  const std::int64_t k = out.k, groups = format.scale_cols(k);
  const std::int64_t width = format.group_cols == 0 ? k : format.group_cols;
  const std::int64_t height = format.group_rows == 0 ? 1 : format.group_rows;
  std::vector<float> rows(static_cast<std::size_t>(height * k));
  std::vector<GroupParams> params(static_cast<std::size_t>(groups));

  for (std::int64_t top = row_begin; top < row_end; top += height) {
    const std::int64_t count = std::min(height, row_end - top);
    load_f32(task.x, top * k, count * k, rows.data());
    for (std::int64_t g = 0; g < groups && format.has_scale(); ++g) {
      GroupStats group = task.matrix;
      if (format.group_rows != 0) {
        group = {};
        for (std::int64_t r = 0; r < count; ++r)
          for (std::int64_t c = g * width; c < std::min((g + 1) * width, k); ++c) group.add(rows[r * k + c]);
        if (format.super_cols > 0) group.add(0);  // its zero points cannot be positive
      }
      params[g] = formats::choose_params(format, input, task.scaling, group, out.tensor_scale);
    }
    if (format.super_cols > 0)
      for (std::int64_t g = 0, count = format.super_cols / width; g < groups; g += count)
        formats::fit_super_block(format, &params[g], static_cast<int>(count));
    const std::int64_t scale_row = format.group_rows == 0 ? 0 : top / format.group_rows;
    if (format.group_rows != 0 || top == 0)
      for (std::int64_t g = 0; g < groups; ++g) store_params(out, scale_row * groups + g, params[g]);
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t c = 0; c < k; ++c) {
        const GroupParams& p = params[c / width];
        const float x = rows[r * k + c];
        const std::uint32_t code = format.rule == formats::Rule::codebook
                                       ? formats::nearest_entry(out.codebook.as<float>(), 16, x / p.scale)
                                       : formats::encode_element(format, input, p, x);
        store_code(out, (top + r) * k + c, code);
      }
  }
}

void dequantize(const QuantizedMatrix& in, Elem output, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const BlockFormat& format = in.format;
  const std::int64_t k = in.k, groups = format.scale_cols(k);
  const std::int64_t width = format.group_cols == 0 ? k : format.group_cols;
  std::vector<GroupParams> params(static_cast<std::size_t>(groups));
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    const std::int64_t scale_row = format.group_rows == 0 ? 0 : r / format.group_rows;
    for (std::int64_t g = 0; g < groups; ++g) params[g] = group_params(in, scale_row, g);
    for (std::int64_t c = 0; c < k; ++c) {
      const GroupParams& p = params[c / width];
      const std::uint32_t code = load_code(in, r * k + c);
      *out++ = format.rule == formats::Rule::codebook
                   ? formats::round_to(output, in.codebook.as<float>()[code % 16] * p.scale)
                   : formats::decode_element(format, output, p, in.tensor_scale, code);
    }
  }
}

}  // namespace

const CastKernels kCast = {"ref", stats, quantize, dequantize};

}  // namespace lowp::kernels::ref
