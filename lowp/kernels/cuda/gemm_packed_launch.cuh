// Launches the kernels of gemm_wide.cuh.
#pragma once

#include <algorithm>

#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemm_packed_table.h"
#include "lowp/kernels/cuda/gemm_wide.cuh"

namespace lowp::kernels::cuda {

template <Codes C, Scales S, int Tokens>
void launch_wide(const PackedProduct& p, int splits, StreamHandle stream) {
  using Shape = WideShape<C, S, Tokens>;
  const auto* kernel = reinterpret_cast<const void*>(&gemm_wide<Shape>);
  const std::int64_t padded = round_up<std::int64_t>(p.k, padded_depth(C));
  // Clusters of eight would not all find room at once.
  const int sharing = splits > 2 ? 1 : 2;
  WideArgs args{.units = p.units,
                .row_scale = p.row_scale,
                .x_scale = p.x_scale,
                .x_scale_step = p.x_scale_step,
                .bias = static_cast<const __nv_bfloat16*>(p.bias),
                .gate = gate_of(p.gate),
                .y = static_cast<__nv_bfloat16*>(p.y),
                .m = static_cast<int>(p.m),
                .n = static_cast<int>(p.n),
                .depths = static_cast<int>(padded / Shape::kDepth),
                .units_along_k = static_cast<int>(padded / unit_depth(C)),
                .row_tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows)),
                .sharing = sharing,
                .splits = splits};
  LaunchShape shape{
      .shared_bytes = Shape::kShared, .cluster = sharing * splits, .overlaps_predecessor = p.overlaps_predecessor};
  const std::int64_t tiles =
      ceil_div<std::int64_t>(p.n, Shape::kOutputs * sharing) * ceil_div<std::int64_t>(p.m, Shape::kTokens);
  allow_shared(kernel, shape.shared_bytes);
  if constexpr (Shape::kLarge) {
    static const int resident = resident_clusters(kernel, shape);
    shape.blocks = static_cast<int>(std::min<std::int64_t>(resident, tiles)) * sharing;
  } else {
    shape.blocks = static_cast<int>(tiles) * sharing * splits;
  }
  constexpr int kBytes = operand_bytes(C);
  CUtensorMap x = tensor_map(p.x, kBytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                             kBytes, p.m, p.k, Tokens / sharing),
              y = tensor_map(p.y, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p.m, p.n, 64);
  void* arguments[] = {&x, &y, &args};
  launch(kernel, shape, arguments, stream);
}

template <Codes C, Scales S>
constexpr PackedKernels packed_kernels() {
  return {C, S, &launch_wide<C, S, 16>, &launch_wide<C, S, 64>, &launch_wide<C, S, 128>, &launch_wide<C, S, 256>};
}

}  // namespace lowp::kernels::cuda
