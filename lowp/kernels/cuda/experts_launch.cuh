// Launches the kernels of experts_gemv.cuh and experts_wide.cuh.
#pragma once

#include "lowp/kernels/cuda/experts_gemv.cuh"
#include "lowp/kernels/cuda/experts_table.h"
#include "lowp/kernels/cuda/experts_wide.cuh"
#include "lowp/kernels/cuda/gemm_launch.h"

namespace lowp::kernels::cuda {

template <Codes C, Scales S, bool Gated>
void launch_experts_gemv(const ExpertsProduct& p, const ExpertChoice& choice, const ExpertsPlan& plan,
                         StreamHandle stream) {
  ExpertsGemvArgs args{.p = p,
                       .choice = choice,
                       .gate = p.gated ? gate_of(p.gate) : Gate::none,
                       .units_along_k = static_cast<int>(round_up<std::int64_t>(p.k, padded_depth(C)) / unit_depth(C)),
                       .tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows)),
                       .stages = plan.stages,
                       .team = plan.team,
                       .x_rows = static_cast<int>(Gated ? p.rows.rows : p.rows.places())};
  const auto* kernel = reinterpret_cast<const void*>(&gemv_experts<C, S, Gated>);
  allow_shared(kernel, plan.shared_bytes);
  void* arguments[] = {&args};
  launch(kernel,
         {.blocks = multiprocessors(),
          .threads = kGemvWarps * 32,
          .shared_bytes = plan.shared_bytes,
          .overlaps_predecessor = true},
         arguments, stream);
}

template <Codes C, Scales S, int Tokens>
void launch_experts_wide(const ExpertsProduct& p, StreamHandle stream) {
  using Shape = ExpertsShape<C, S, Tokens>;
  const auto* kernel = reinterpret_cast<const void*>(&gemm_experts<Shape>);
  const std::int64_t padded = round_up<std::int64_t>(p.k, padded_depth(C)), places = p.rows.places();
  ExpertsWideArgs args{
      .p = p,
      .gate = p.gated ? gate_of(p.gate) : Gate::none,
      .wide = {},
      .column_tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, Shape::kOutputs * Shape::kSharing))};
  args.wide.units = p.units;
  args.wide.depths = static_cast<int>(padded / Shape::kDepth);
  args.wide.units_along_k = static_cast<int>(padded / unit_depth(C));
  args.wide.row_tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows));
  args.wide.sharing = Shape::kSharing;
  args.wide.splits = 1;
  static const int resident = resident_clusters(kernel, {.shared_bytes = Shape::kShared, .cluster = Shape::kSharing});
  constexpr int kBytes = operand_bytes(C);
  CUtensorMap x = tensor_map(p.x, kBytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                             kBytes, places, p.k, Tokens / Shape::kSharing);
  void* arguments[] = {&x, &args};
  const std::int64_t tiles = p.rows.blocks() * args.column_tiles;
  launch(kernel,
         {.blocks = static_cast<int>(std::min<std::int64_t>(resident, tiles)) * Shape::kSharing,
          .shared_bytes = Shape::kShared,
          .cluster = Shape::kSharing,
          .overlaps_predecessor = true},
         arguments, stream);
}

template <Codes C, Scales S>
constexpr ExpertsKernels experts_kernels() {
  ExpertsKernels row{C,
                     S,
                     nullptr,
                     nullptr,
                     &launch_experts_wide<C, S, 16>,
                     &launch_experts_wide<C, S, 64>,
                     &launch_experts_wide<C, S, 128>};
  if constexpr (operand_bytes(C) == 2) {
    row.gated = &launch_experts_gemv<C, S, true>;
    row.combined = &launch_experts_gemv<C, S, false>;
  }
  return row;
}

}  // namespace lowp::kernels::cuda
