#include "lowp/kernels/cuda/attention.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/attention_launch.h"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

const AttentionKernels& kernels_of(const AttentionTask& task) {
  const KvPageLayout& layout = task.kv.layout;
  check_layout(layout);
  for (const auto& table : {kAttentionBf16, kAttentionE4m3, kAttentionInt8})
    for (int i = 0; i < 3; ++i)
      if (table[i].type == layout.type && table[i].head_dim == layout.head_dim) return table[i];
  LOWP_CHECK(false, "no attention for heads of {}", layout.head_dim);
}

const AttentionKernels& checked(const AttentionTask& task) {
  const AttentionKernels& kernels = kernels_of(task);
  LOWP_CHECK(task.heads > 0 && task.heads % task.kv.layout.kv_heads == 0, "{} query heads for {} KV heads", task.heads,
             task.kv.layout.kv_heads);
  const std::int64_t group = task.heads / task.kv.layout.kv_heads;
  LOWP_CHECK(task.rows * group * group < std::int64_t{1} << 32, "{} rows of {} heads", task.rows, task.heads);
  LOWP_CHECK(task.sequences <= kMostSequences, "{} sequences", task.sequences);
  LOWP_CHECK(task.q_stride % 8 == 0 && task.out_stride % 8 == 0, "rows {} and {} apart", task.q_stride,
             task.out_stride);
  LOWP_CHECK(task.heads * task.rows * task.kv.max_pages < std::int64_t{1} << 31, "{} rows over {} pages", task.rows,
             task.kv.max_pages);
  LOWP_CHECK(task.scale > 0, "scores times {}", task.scale);
  LOWP_CHECK(task.kv.layer_offset % 128 == 0, "a layer at byte {} of a page", task.kv.layer_offset);
  return kernels;
}

}  // namespace

void attend_decode(const AttentionTask& task, StreamHandle stream) {
  const AttentionKernels& kernels = checked(task);
  LOWP_CHECK(task.causal && !task.e4m3, "attend_decode is causal and exact");
  const Timed timed(stream, [] { return Work{.name = "attend_decode"}; });
  if (task.rows > 0 && task.sequences > 0) kernels.decode(task, stream);
}

std::int64_t attend_decode_workspace(const AttentionTask& task) { return kernels_of(task).decode_workspace(task); }

void attend_prefill(const AttentionTask& task, StreamHandle stream) {
  const AttentionKernels& kernels = checked(task);
  LOWP_CHECK(task.causal || task.window == 0, "a window of {} that looks ahead", task.window);
  LOWP_CHECK(task.e4m3 || !task.hadamard, "results of exact products are rotated by hadamard_heads()");
  LOWP_CHECK(!task.e4m3 || kernels.prefill_e4m3, "no products of e4m3 over a cache of {}, heads of {}",
             formats::name(kernels.type), kernels.head_dim);
  const Timed timed(stream, [&] {
    return Work{.name = "attend_prefill", .multiplies = task.e4m3 ? Multiplies::e4m3 : Multiplies::bf16};
  });
  if (task.rows > 0 && task.sequences > 0) (task.e4m3 ? kernels.prefill_e4m3 : kernels.prefill)(task, stream);
}

}  // namespace lowp::kernels::cuda
