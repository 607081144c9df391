// Launches the kernels of gemv.cuh and gemm_wide.cuh.
#pragma once

#include <algorithm>

#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemm_packed_table.h"
#include "lowp/kernels/cuda/gemm_wide.cuh"
#include "lowp/kernels/cuda/gemv.cuh"

namespace lowp::kernels::cuda {

inline GemvInput gemv_input(const PackedProduct& p) {
  const auto values = [](const void* at) { return static_cast<const __nv_bfloat16*>(at); };
  GemvInput in{.x = values(p.x)};
  if (const AddNormTask* norm = p.norm) {
    in.x = values(norm->stream);
    in.add = values(norm->add);
    in.sum = static_cast<__nv_bfloat16*>(norm->sum);
    in.norm = norm->weight;
    in.eps = norm->eps;
    in.round_quotient = norm->round_quotient;
    in.lanes = row_threads(p.k);
  }
  if (p.cast) {
    in.cast = row_cast_of(p.cast);
    in.one_scale = p.cast->group_rows == 0;
    in.codec = row_codec_args(*p.cast);
  }
  return in;
}

template <Codes C, Scales S, int Columns>
void launch_gemv(const PackedProduct& p, int stages, int team, StreamHandle stream) {
  const int units = static_cast<int>(round_up<std::int64_t>(p.k, padded_depth(C)) / unit_depth(C));
  GemvArgs args{.units = p.units,
                .input = gemv_input(p),
                .x_scale = p.x_scale,
                .x_scale_step = p.x_scale_step,
                .row_scale = p.row_scale,
                .bias = static_cast<const __nv_bfloat16*>(p.bias),
                .gate = gate_of(p.gate),
                .y = static_cast<__nv_bfloat16*>(p.y),
                .m = static_cast<int>(p.m),
                .n = static_cast<int>(p.n),
                .k = static_cast<int>(p.k),
                .units_along_k = units,
                .tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows)),
                .stages = stages,
                .team = team};
  const int x_bytes = static_cast<int>(p.m) * gemv_row_stride(units * unit_depth(C), Columns) * 2;
  // More than half of a multiprocessor's shared memory: blocks that begin early, while others hold some of the
  // multiprocessors, would else go two by two to the rest.
  constexpr int kAlone = 120 << 10;
  const LaunchShape shape{.blocks = multiprocessors(),
                          .threads = kGemvWarps * 32,
                          .shared_bytes = std::max(kAlone, kGemvWarps * stages * unit_bytes(C, S) + x_bytes),
                          .overlaps_predecessor = p.overlaps_predecessor};
  const auto* kernel = reinterpret_cast<const void*>(&gemv<C, S, Columns>);
  allow_shared(kernel, shape.shared_bytes);
  void* arguments[] = {&args};
  launch(kernel, shape, arguments, stream);
}

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
  PackedKernels row{C,
                    S,
                    nullptr,
                    nullptr,
                    &launch_wide<C, S, 16>,
                    &launch_wide<C, S, 64>,
                    &launch_wide<C, S, 128>,
                    &launch_wide<C, S, 256>};
  if constexpr (operand_bytes(C) == 2) {
    row.gemv1 = &launch_gemv<C, S, 1>;
    row.gemv8 = &launch_gemv<C, S, 8>;
  }
  return row;
}

}  // namespace lowp::kernels::cuda
