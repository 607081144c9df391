// Launches the kernels of experts_gemv.cuh and experts_wide.cuh.
#pragma once

#include <bit>

#include "lowp/kernels/cuda/experts_gemv.cuh"
#include "lowp/kernels/cuda/experts_table.h"
#include "lowp/kernels/cuda/experts_wide.cuh"
#include "lowp/kernels/cuda/gemm_launch.h"

namespace lowp::kernels::cuda {

// What the kernel declares beside what the plan counts.
static_assert(sizeof(FewChosen) + sizeof(FewScores) + sizeof(GemvRows<8>::Shared) + 8 * kGemvWarps * kGemvMostStages <
              kExpertsDeclared);

inline GemvInput few_input(const FewExperts& task) {
  const auto values = [](const void* at) { return static_cast<const __nv_bfloat16*>(at); };
  GemvInput in{.x = values(task.gate_up.x)};
  if (const AddNormTask* norm = task.norm) {
    in.x = values(norm->stream);
    in.add = values(norm->add);
    in.sum = static_cast<__nv_bfloat16*>(norm->sum);
    in.norm = norm->weight;
    in.eps = norm->eps;
    in.round_quotient = norm->round_quotient;
    in.lanes = row_threads(task.gate_up.k);
  }
  return in;
}

/// A product without a team is another launch's.
template <Codes C, Scales S>
void launch_experts_few(const FewExperts& task, const ExpertsPlan& plan, StreamHandle stream) {
  const auto part = [](const ExpertsProduct& p, int team) {
    ExpertsGemvPart made{};
    if (!team) return made;
    made.p = p;
    made.units_along_k = static_cast<int>(round_up<std::int64_t>(p.k, padded_depth(C)) / unit_depth(C));
    made.tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows));
    made.log_team = std::countr_zero(static_cast<unsigned>(team));
    return made;
  };
  const RoutedRows& rows = plan.gate_up_team ? task.gate_up.rows : task.down.rows;
  ExpertsGemvArgs args{.gate_up = part(task.gate_up, plan.gate_up_team),
                       .down = part(task.down, plan.down_team),
                       .choice = task.choice,
                       .rows = static_cast<int>(rows.rows),
                       .experts = static_cast<int>(rows.experts),
                       .top = static_cast<int>(rows.top),
                       .input = few_input(task),
                       .gate = gate_of(task.gate_up.gate),
                       .router = static_cast<const __nv_bfloat16*>(task.router),
                       .router_bias = static_cast<const __nv_bfloat16*>(task.router_bias),
                       .mail = task.mail,
                       .stages = plan.stages,
                       .tables_at = plan.tables_at};
  const auto* kernel = reinterpret_cast<const void*>(&gemv_experts<C, S>);
  allow_shared(kernel, plan.shared_bytes);
  void* arguments[] = {&args};
  launch(kernel,
         {.blocks = multiprocessors(),
          .threads = kGemvThreads,
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
  ExpertsKernels row{
      C, S, nullptr, &launch_experts_wide<C, S, 16>, &launch_experts_wide<C, S, 64>, &launch_experts_wide<C, S, 128>};
  if constexpr (operand_bytes(C) == 2) row.few = &launch_experts_few<C, S>;
  return row;
}

}  // namespace lowp::kernels::cuda
