#include "lowp/kernels/group.h"

#include <algorithm>
#include <array>

#include "lowp/base/error.h"

namespace lowp::kernels {
namespace {

using formats::GroupParams;
using formats::GroupStats;

constexpr std::int64_t kMostGroups = 16;  // of a super-block

// Calls body(element index, values, count) for pieces of the group, row by row.
template <typename Body>
void for_pieces(const QuantizeTask& task, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols,
                const Body& body) {
  std::array<float, 256> values;
  for (std::int64_t r = row; r < row + rows; ++r)
    for (std::int64_t c = col; c < col + cols; c += static_cast<std::int64_t>(values.size())) {
      const std::int64_t count = std::min<std::int64_t>(static_cast<std::int64_t>(values.size()), col + cols - c);
      const std::int64_t at = r * task.out->k + c;
      load_f32(task.x, at, count, values.data());
      body(at, values.data(), count);
    }
}

}  // namespace

void fit_super_block(const formats::BlockSpec& format, GroupParams* groups, int count) {
  formats::fit_super_block(format, groups, count);
}

void store_params(QuantizedMatrix& out, std::int64_t at, const GroupParams& p) {
  if (formats::info(out.format.scale).bits > 8)
    out.scale.as<float>()[at] = p.scale;
  else
    out.scale.as<std::uint8_t>()[at] = static_cast<std::uint8_t>(p.scale_code);
  if (out.format.zero_point == formats::ZeroPoint::integer)
    out.zero_point.as<std::int8_t>()[at] = static_cast<std::int8_t>(p.zero_point);
  if (out.format.zero_point == formats::ZeroPoint::floating) out.zero_point.as<float>()[at] = p.zero_point;
}

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

bool quantize_group(const QuantizeTask& task, std::int64_t row, std::int64_t rows, std::int64_t col,
                    std::int64_t cols) {
  QuantizedMatrix& out = *task.out;
  const formats::BlockFormat& format = out.format;
  const bool whole = format.group_rows == 0;
  const std::int64_t width = format.super_cols > 0 ? format.group_cols : cols, count = cols / width;
  std::array<GroupParams, kMostGroups> params;
  LOWP_CHECK(count <= kMostGroups, "{} groups of {} in a super-block", count, format.name);
  bool finite = true;
  const float tensor_scale =
      format.tensor_scale ? formats::choosing_scale(format, task.matrix.amax()) : out.tensor_scale;
  for (std::int64_t g = 0; g < count && format.has_scale(); ++g) {
    GroupStats group = task.matrix;
    if (!whole) {
      group = {};
      for_pieces(task, row, rows, col + g * width, width, [&](std::int64_t, const float* values, std::int64_t size) {
        for (std::int64_t i = 0; i < size; ++i) group.add(values[i]);
      });
      if (format.super_cols > 0) group.add(0);  // its zero points cannot be positive
    }
    params[g] = formats::choose_params(format, out.input, task.scaling, group, tensor_scale);
    finite = finite && group.finite;
  }
  if (format.super_cols > 0) formats::fit_super_block(format, params.data(), static_cast<int>(count));
  if (format.has_scale() && (!whole || row == 0)) {
    const std::int64_t scale_row = whole ? 0 : row / format.group_rows;
    const std::int64_t scale_col = format.group_cols == 0 ? 0 : col / format.group_cols;
    for (std::int64_t g = 0; g < count; ++g)
      store_params(out, scale_row * format.scale_cols(out.k) + scale_col + g, params[g]);
  }
  for (std::int64_t g = 0; g < count; ++g)
    for_pieces(task, row, rows, col + g * width, width, [&](std::int64_t at, const float* values, std::int64_t size) {
      const GroupParams& p = params[g];
      for (std::int64_t i = 0; i < size; ++i) {
        if (task.stochastic)
          store_code(out, at + i,
                     formats::encode_stochastic(format.element, formats::scale_element(format, p, values[i]),
                                                random_bits(*task.stochastic, at + i)));
        else if (format.rule == formats::Rule::codebook)
          store_code(out, at + i, formats::nearest_entry(out.codebook.as<float>(), 16, values[i] / p.scale));
        else
          store_code(out, at + i, formats::encode_element(format, out.input, p, values[i]));
      }
    });
  return finite;
}

bool quantize_groups(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end) {
  const formats::BlockFormat& format = task.out->format;
  const std::int64_t k = task.out->k, unit = std::max(format.group_cols, format.super_cols);
  const std::int64_t width = unit == 0 || !format.has_scale() ? k : unit;
  const std::int64_t height = format.group_rows == 0 ? 1 : format.group_rows;
  bool all_finite = true;
  for (std::int64_t top = row_begin; top < row_end; top += height)
    for (std::int64_t left = 0; left < k; left += width)
      all_finite &= quantize_group(task, top, std::min(height, row_end - top), left, std::min(width, k - left));
  return all_finite;
}

std::uint32_t load_code(const QuantizedMatrix& matrix, std::int64_t i) {
  if (matrix.format.two_codes_a_byte()) return (matrix.codes.as<std::uint8_t>()[i / 2] >> (i % 2 * 4)) & 0xFu;
  switch (formats::info(matrix.format.element).bits) {
    case 32:
      return matrix.codes.as<std::uint32_t>()[i];
    case 16:
      return matrix.codes.as<std::uint16_t>()[i];
    default:
      return matrix.codes.as<std::uint8_t>()[i];
  }
}

}  // namespace lowp::kernels
