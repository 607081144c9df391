// RoPE and the new keys and values into their pages: a block for each row, head_dim / 16 threads for each of its heads.
#include <algorithm>

#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/cuda/rotate.cuh"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 384;

template <Elem kType>
__global__ void __launch_bounds__(kThreads) rotate_and_store(const __grid_constant__ RotateStoreTask task) {
  ptx::launch_dependents();
  // Positions, pages and angles were there before the step began.
  const std::int64_t row = blockIdx.x;
  const std::int32_t position = task.positions[row];
  if (position < 0) {
    if (row == 0) ptx::wait_for_predecessor();  // the grid must not end before it
    return;
  }
  const KvPageLayout layout = task.kv.layout;
  const int half = layout.head_dim / 2, threads = half / 8, t = static_cast<int>(threadIdx.x) % threads;
  const int heads = static_cast<int>(task.heads), count = heads + 2 * layout.kv_heads, slot = position % kPageTokens;
  auto* page =
      static_cast<unsigned char*>(task.kv.pages[task.sequences[row] * task.kv.max_pages + position / kPageTokens]) +
      task.kv.layer_offset;
  Angles angles;
  angles.load(task, position, t, half);
  ptx::wait_for_predecessor();
  // All threads of a warp stay together for the shuffles: a head beyond the last is computed like a value and dropped.
  for (int first = 0; first < count; first += static_cast<int>(blockDim.x) / threads) {
    const int head = first + static_cast<int>(threadIdx.x) / threads;
    const bool is_query = head < heads, is_key = !is_query && head < heads + layout.kv_heads, present = head < count;
    const int kv_head = is_key ? head - heads : present ? head - heads - layout.kv_heads : 0;
    HeadValues x;
    if (is_query)
      x.load(task.q, row * task.q_stride + std::int64_t{head} * layout.head_dim, t, half);
    else
      x.load(is_key ? task.k : task.v,
             row * (is_key ? task.k_stride : task.v_stride) + std::int64_t{kv_head} * layout.head_dim, t, half);
    turn_head(task, is_query ? HeadKind::query : is_key ? HeadKind::key : HeadKind::value, angles, x, t, threads);
    if (is_query) {
      const std::int64_t at = row * task.q_stride + std::int64_t{head} * layout.head_dim + 8 * t;
      store_eight(task.q, at, to_chunk<Elem::bf16>(x.low));
      store_eight(task.q, at + half, to_chunk<Elem::bf16>(x.high));
    }
    auto* to = page + (is_key ? layout.keys_at(kv_head) : layout.values_at(kv_head));
    auto* scale =
        reinterpret_cast<float*>(page + (is_key ? layout.key_scales_at(kv_head) : layout.value_scales_at(kv_head)));
    store_kv<kType>(x, layout, to, scale, slot, t, threads, present && !is_query);
  }
}

}  // namespace

void launch_rotate_store(const RotateStoreTask& task, StreamHandle stream) {
  const KvPageLayout& layout = task.kv.layout;
  const std::int64_t wanted = (task.heads + 2 * layout.kv_heads) * (layout.head_dim / 16);
  const int threads = static_cast<int>(std::min<std::int64_t>(kThreads, round_up<std::int64_t>(wanted, 32)));
  const auto kernel = layout.type == Elem::bf16   ? rotate_and_store<Elem::bf16>
                      : layout.type == Elem::e4m3 ? rotate_and_store<Elem::e4m3>
                                                  : rotate_and_store<Elem::int8>;
  launch_early(kernel, task.rows, threads, task, stream);
}

}  // namespace lowp::kernels::cuda
