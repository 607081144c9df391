#include "lowp/kernels/kernel.h"

#include "lowp/base/env.h"
#include "lowp/base/error.h"

namespace lowp::kernels {

bool reference_backend() {
  static const bool forced = [] {
    const std::string value = env::get("LOWP_FORCE_BACKEND");
    if (!value.empty() && value != "ref")
      fail(ErrorCode::usage, "LOWP_FORCE_BACKEND: expected ref or nothing, found '{}'", value);
    return value == "ref";
  }();
  return forced;
}

formats::GroupParams group_params(const QuantizedMatrix& matrix, std::int64_t group_row, std::int64_t group_col) {
  formats::GroupParams p;
  if (!matrix.format.has_scale()) return p;
  const std::int64_t at = group_row * matrix.format.scale_cols(matrix.k) + group_col;
  if (formats::info(matrix.format.scale).bits > 8) {
    p.scale = matrix.scale.as<float>()[at];
  } else {
    p.scale_code = matrix.scale.as<std::uint8_t>()[at];
    p.scale = formats::decode(matrix.format.scale, p.scale_code);
  }
  if (matrix.format.zero_point == formats::ZeroPoint::integer) p.zero_point = matrix.zero_point.as<std::int8_t>()[at];
  if (matrix.format.zero_point == formats::ZeroPoint::floating) p.zero_point = matrix.zero_point.as<float>()[at];
  return p;
}

}  // namespace lowp::kernels
