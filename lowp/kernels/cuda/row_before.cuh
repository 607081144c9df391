// What stands in front of a cast of rows: a norm, a gate, or nothing. A block holds its row in registers.
#pragma once

#include "lowp/kernels/cuda/add_norm.cuh"
#include "lowp/kernels/cuda/gated.cuh"

namespace lowp::kernels::cuda {

enum class Before : std::uint8_t { nothing, norm, gate };

struct BeforeArgs {
  const void* x;
  AddNormTask norm;
  GateTask gate;
  Gate kind;
  int chunks;
};

inline BeforeArgs before_args(const CastRowsTask& task) {
  BeforeArgs args{.x = task.x, .norm = {}, .gate = {}, .kind = Gate::none, .chunks = static_cast<int>(task.width / 8)};
  if (task.norm) args.norm = *task.norm;
  if (task.gate) {
    args.gate = *task.gate;
    args.kind = gate_of(task.gate->activation);
  }
  return args;
}

/// The block's row; zeros beyond its end. Waits for the predecessor.
template <Before kBefore>
__device__ __forceinline__ void load_row(const BeforeArgs& args, Bf16x8 (&row)[kRowChunks]) {
  if constexpr (kBefore == Before::norm) {
    normalised_row(args.norm, blockIdx.x, true, row);
  } else {
    ptx::wait_for_predecessor();
    Bf16x8 up[kRowChunks];
#pragma unroll
    for (int i = 0; i < kRowChunks; ++i) {
      const int at = row_chunk(i);
      row[i].clear();
      up[i].clear();
      if (at >= args.chunks) continue;
      if constexpr (kBefore == Before::gate) {
        const GateTask& gate = args.gate;
        const int from = gate.by_eights ? 16 * at : 8 * at;
        row[i] = load_written(gate.gate, blockIdx.x * gate.gate_stride + from);
        up[i] = load_written(gate.up, blockIdx.x * gate.up_stride + from);
      } else {
        row[i] = load_written(args.x, (static_cast<std::int64_t>(blockIdx.x) * args.chunks + at) * 8);
      }
    }
    if constexpr (kBefore == Before::gate) {
#pragma unroll
      for (int i = 0; i < kRowChunks; ++i) row[i] = gated(args.kind, row[i], up[i]);
    }
  }
}

}  // namespace lowp::kernels::cuda
