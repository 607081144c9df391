// Launches one shape of the kernel of gemm_dense.cuh.
#pragma once

#include <algorithm>

#include "lowp/kernels/cuda/gemm_dense.cuh"
#include "lowp/kernels/cuda/gemm_dense_table.h"
#include "lowp/kernels/cuda/gemm_launch.h"

namespace lowp::kernels::cuda {

template <class Shape>
void launch_dense(const GroupedProduct& p, StreamHandle stream) {
  const auto* kernel = reinterpret_cast<const void*>(&gemm_dense<Shape>);
  LaunchShape shape{.shared_bytes = Shape::kShared, .cluster = Shape::kCluster};
  static const int resident = resident_clusters(kernel, shape);
  const std::int64_t tiles =
      ceil_div<std::int64_t>(p.m, Shape::kClusterRows) * ceil_div<std::int64_t>(p.n, Shape::kClusterColumns);
  shape.blocks = static_cast<int>(std::min<std::int64_t>(resident, tiles)) * Shape::kCluster;
  constexpr int kPartsOfA = Shape::kShareA ? Shape::kCluster : 1, kPartsOfB = Shape::kShareA ? 1 : Shape::kCluster;
  CUtensorMap a = tensor_map(p.a, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, p.m, p.k, Shape::kRows / kPartsOfA),
              b = tensor_map(p.b, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, p.n * p.experts, p.k, Shape::kColumns / kPartsOfB),
              y = tensor_map(p.y, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p.m, p.n, 64);
  DenseArgs args{.m = static_cast<int>(p.m),
                 .n = static_cast<int>(p.n),
                 .k = static_cast<int>(p.k),
                 .a_scale = p.a_scale,
                 .b_scale = p.b_scale,
                 .a_scale_step = p.a_scale_each,
                 .b_scale_step = p.b_scale_each,
                 .bias = static_cast<const __nv_bfloat16*>(p.bias),
                 .a_zero = p.a_zero,
                 .b_sum = p.b_sum,
                 .expert_of_block = p.expert_of_block};
  void* arguments[] = {&a, &b, &y, &args};
  launch(kernel, shape, arguments, stream);
}

/// A row of the table.
template <class Shape>
constexpr DenseVariant dense_variant(const char* name, int rate) {
  return {name, Shape::kClusterRows, Shape::kClusterColumns, 132 / Shape::kCluster, rate, &launch_dense<Shape>};
}

}  // namespace lowp::kernels::cuda
