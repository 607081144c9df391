// Launches the kernels of attention_decode.cuh, attention_prefill.cuh and attention_prefill_mma.cuh.
#pragma once

#include <algorithm>

#include "lowp/kernels/cuda/attention_decode.cuh"
#include "lowp/kernels/cuda/attention_launch.h"
#include "lowp/kernels/cuda/attention_prefill.cuh"
#include "lowp/kernels/cuda/attention_prefill_mma.cuh"
#include "lowp/kernels/cuda/gemm_launch.h"

namespace lowp::kernels::cuda {

/// Bytes of the states in front of a workspace's counters: the same whatever a call's sizes are, so that no call writes
/// sums where a larger one counts.
template <class Op>
std::int64_t decode_state_bytes() {
  return std::int64_t{multiprocessors()} * kStates * DecodeShape<Op>::kStateFloats * std::int64_t{sizeof(float)};
}

template <class Op>
std::int64_t decode_workspace(const AttentionTask& task) {
  return decode_state_bytes<Op>() + tile_numbers<kDecodeRows>(task) * task.kv.layout.kv_heads * 4;
}

template <class Op>
void launch_decode(const AttentionTask& task, StreamHandle stream) {
  using Shape = DecodeShape<Op>;
  auto* workspace = static_cast<std::uint8_t*>(task.workspace);
  DecodeArgs args{task, Group(task.heads / task.kv.layout.kv_heads), reinterpret_cast<float*>(workspace),
                  reinterpret_cast<std::uint32_t*>(workspace + decode_state_bytes<Op>())};
  const auto* kernel = reinterpret_cast<const void*>(&attention_decode<Op>);
  allow_shared(kernel, Shape::kShared);
  void* arguments[] = {&args};
  launch(kernel,
         {.blocks = multiprocessors(),
          .threads = Shape::kThreads,
          .shared_bytes = Shape::kShared,
          .overlaps_predecessor = true},
         arguments, stream);
}

template <class Op>
void launch_prefill_mma(const AttentionTask& task, StreamHandle stream) {
  using Shape = PrefillMmaShape<Op>;
  AttentionTask copy = task;
  Group group(task.heads / task.kv.layout.kv_heads);
  int numbers = static_cast<int>(tile_numbers<Shape::kRows>(task));
  const auto* kernel = reinterpret_cast<const void*>(&attention_prefill_mma<Op>);
  allow_shared(kernel, Shape::kShared);
  void* arguments[] = {&copy, &group, &numbers};
  launch(kernel,
         {.blocks = numbers * task.kv.layout.kv_heads,
          .threads = Shape::kThreads,
          .shared_bytes = Shape::kShared,
          .overlaps_predecessor = true},
         arguments, stream);
}

template <class Op>
void launch_prefill(const AttentionTask& task, StreamHandle stream) {
  using Shape = PrefillShape<Op::kDim>;
  PrefillArgs args{task, Group(task.heads / task.kv.layout.kv_heads),
                   static_cast<int>(tile_numbers<Shape::kRows>(task))};
  const auto* kernel = reinterpret_cast<const void*>(&attention_prefill<Op::kDim>);
  allow_shared(kernel, Shape::kShared);
  void* arguments[] = {&args};
  launch(kernel,
         {.blocks = std::min(multiprocessors(), args.numbers * task.kv.layout.kv_heads),
          .threads = 384,
          .shared_bytes = Shape::kShared,
          .overlaps_predecessor = true},
         arguments, stream);
}

template <class Op>
constexpr AttentionKernels attention_kernels() {
  LaunchAttention prefill = nullptr;
  if constexpr (Op::k8Bit)
    prefill = &launch_prefill_mma<Op>;
  else
    prefill = &launch_prefill<Op>;
  return {Op::kType, Op::kDim, &launch_decode<Op>, prefill, &decode_workspace<Op>};
}

}  // namespace lowp::kernels::cuda
