#include <algorithm>

#include "lowp/base/threads.h"
#include "lowp/formats/quantize.h"
#include "lowp/ops/linear.h"

namespace lowp::ops {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::GroupParams;
using formats::GroupStats;
using formats::Scope;

GroupStats stats_of(const float* x, std::int64_t count) {
  GroupStats stats;
  for (std::int64_t i = 0; i < count; ++i) stats.add(x[i]);
  return stats;
}

// Parameters of a fixed scale: what choose_params() would have found on data with this scale.
GroupParams fixed_params(float scale) {
  GroupParams p;
  p.scale = scale;
  p.multiplier = 1.0f / scale;
  return p;
}

}  // namespace

void fake_quantize(const formats::Activation& activation, Elem compute, std::optional<float> calibrated,
                   std::span<const float> x, std::int64_t rows, std::int64_t k, std::span<float> out) {
  const BlockFormat& format = activation.format;
  const std::int64_t width = format.group_cols == 0 ? k : format.group_cols;
  // torchao's intx recipes give the multiplication values of the activation's dtype, the others exact ones.
  const Elem output = format.scale_in_input_dtype ? compute : Elem::f32;
  const bool whole_call = activation.scope == Scope::tensor;
  const GroupStats call = whole_call ? stats_of(x.data(), rows * k) : GroupStats{};
  const bool fixed_scale = activation.scope == Scope::calibrated && !format.tensor_scale;

  parallel_for(
      rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(k, 1)), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const float* row = x.data() + r * k;
          float* to = out.data() + r * k;
          float tensor_scale = 1;
          if (format.tensor_scale)
            tensor_scale = calibrated ? *calibrated
                                      : formats::nvfp4_tensor_scale(whole_call ? call.amax() : stats_of(row, k).amax());
          for (std::int64_t g = 0; g < k; g += width) {
            const bool from_call = whole_call && format.group_rows == 0;
            const GroupParams p =
                fixed_scale ? fixed_params(*calibrated)
                            : formats::choose_params(format, compute, formats::Scaling::rceil,
                                                     from_call ? call : stats_of(row + g, width), tensor_scale);
            for (std::int64_t i = g; i < g + width; ++i)
              to[i] = formats::decode_element(format, output, p, tensor_scale,
                                              formats::encode_element(format, compute, p, row[i]));
          }
        }
      });
}

}  // namespace lowp::ops
