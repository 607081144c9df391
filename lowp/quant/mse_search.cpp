#include "lowp/quant/mse_search.h"

#include <algorithm>
#include <limits>

#include "lowp/base/threads.h"
#include "lowp/kernels/group.h"

namespace lowp::quant {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::GroupParams;
using formats::GroupStats;

// Fractions of the range, in steps of 1/40. Above 1: the largest value lands on a lower code, which suits formats whose
// codes are not evenly spaced, and integers, whose negative side reaches one step further.
constexpr int kFirst = 18, kLast = 60;
constexpr float kStep = 1.0f / 40;

double error(const BlockFormat& format, Elem input, const GroupParams& p, float tensor_scale,
             std::span<const float> values, std::span<const float> importance, double bound) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size() && sum < bound; ++i) {
    const std::uint32_t code = formats::encode_element(format, input, p, values[i]);
    const double e = static_cast<double>(values[i]) -
                     static_cast<double>(formats::decode_element(format, Elem::f32, p, tensor_scale, code));
    sum += e * e * (importance.empty() ? 1.0 : static_cast<double>(importance[i]));
  }
  return sum;
}

// Rules whose parameters follow from the bounds alone: the same parameters need not be tried twice.
bool same(const GroupParams& a, const GroupParams& b) {
  return a.scale == b.scale && a.zero_point == b.zero_point && a.scale_code == b.scale_code;
}

GroupParams search_group(const BlockFormat& format, Elem input, formats::Scaling scaling, float tensor_scale,
                         std::span<const float> values, std::span<const float> importance) {
  GroupStats all;
  for (const float value : values) all.add(value);
  if (format.super_cols > 0) all.add(0);  // its zero points cannot be positive
  const auto params = [&](const GroupStats& stats) {
    return formats::choose_params(format, input, scaling, stats, tensor_scale);
  };
  GroupParams best = params(all), last = best;
  double least = error(format, input, best, tensor_scale, values, importance, std::numeric_limits<double>::infinity());
  for (int step = kFirst; step <= kLast; ++step) {
    GroupStats stats = all;
    stats.min = formats::round_to(input, all.min * (kStep * static_cast<float>(step)));
    stats.max = formats::round_to(input, all.max * (kStep * static_cast<float>(step)));
    const GroupParams p = params(stats);
    if (same(p, last)) continue;
    last = p;
    if (const double sum = error(format, input, p, tensor_scale, values, importance, least); sum < least) {
      least = sum;
      best = p;
    }
  }
  return best;
}

}  // namespace

std::string search_refusal(const BlockFormat& format) {
  if (format.group_rows == 1 && format.has_scale() && format.rule != formats::Rule::codebook && !format.hqq) return "";
  return "a search needs scales of groups that lie in one row, which " + format.name + " does not have";
}

std::vector<GroupParams> search_row(const BlockFormat& format, Elem input, formats::Scaling scaling, float tensor_scale,
                                    std::span<const float> row, std::span<const float> importance) {
  const std::size_t width = format.group_cols ? static_cast<std::size_t>(format.group_cols) : row.size();
  std::vector<GroupParams> params;
  for (std::size_t at = 0; at < row.size(); at += width)
    params.push_back(search_group(format, input, scaling, tensor_scale, row.subspan(at, width),
                                  importance.empty() ? importance : importance.subspan(at, width)));
  const auto together = static_cast<std::size_t>(format.super_cols / std::max(format.group_cols, 1));
  if (together > 0)
    for (std::size_t at = 0; at < params.size(); at += together)
      formats::fit_super_block(format, params.data() + at, static_cast<int>(together));
  return params;
}

QuantizedMatrix begin_search(const TensorView& x, const BlockFormat& format, const ops::CastOptions& options) {
  QuantizedMatrix out = ops::allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  ops::CastOptions reading = options;
  reading.rows_read = nullptr;  // x is read again
  const GroupStats own = ops::stats(x, reading);
  if (format.tensor_scale) out.tensor_scale = formats::nvfp4_tensor_scale(options.shared.value_or(own).amax());
  return out;
}

QuantizedMatrix mse_search(const TensorView& x, const BlockFormat& format, std::span<const float> importance,
                           const ops::CastOptions& options) {
  QuantizedMatrix out = begin_search(x, format, options);
  const std::int64_t width = format.group_cols ? format.group_cols : out.k;
  parallel_for(out.m, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(out.k));
    for (std::int64_t r = begin; r < end; ++r) {
      load_f32(x, r * out.k, out.k, row.data());
      const std::vector<GroupParams> params =
          search_row(format, out.input, options.scaling, out.tensor_scale, row, importance);
      for (std::size_t g = 0; g < params.size(); ++g)
        kernels::store_params(out, r * static_cast<std::int64_t>(params.size()) + static_cast<std::int64_t>(g),
                              params[g]);
      for (std::int64_t c = 0; c < out.k; ++c)
        kernels::store_code(out, r * out.k + c,
                            formats::encode_element(format, out.input, params[static_cast<std::size_t>(c / width)],
                                                    row[static_cast<std::size_t>(c)]));
    }
  });
  if (options.rows_read) options.rows_read(out.m);
  return out;
}

}  // namespace lowp::quant
