#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/attention.h"
#include "lowp/kernels/cuda/attention_heads.h"
#include "lowp/kernels/cuda/rope.h"

namespace lowp::kernels::cuda {
namespace {

// The parts of a workspace from `base` on.
struct Parts {
  KvPageLayout layout;
  std::int64_t pages_each, pages;
  unsigned char* pool = nullptr;                         // the pages
  void** table = nullptr;                                // [batch, pages_each]
  std::int32_t *row_begin = nullptr, *past = nullptr;    // [batch + 1], [batch]
  std::uint32_t *query_amax = nullptr, *amax = nullptr;  // [batch, kv_heads]
  float* descale = nullptr;                              // [batch, kv_heads]
  std::uint16_t* q = nullptr;                            // bf16 [batch, seq, heads, dim]
  std::int64_t bytes = 0;

  Parts(const HeadsAttentionTask& task, void* base)
      : layout{formats::Elem::e4m3, static_cast<int>(task.kv_heads), static_cast<int>(task.dim)},
        pages_each(ceil_div<std::int64_t>(task.seq, kPageTokens)),
        pages(task.batch * pages_each) {
    const auto take = [&]<typename T>(T*& part, std::int64_t size) {
      part = reinterpret_cast<T*>(static_cast<unsigned char*>(base) + bytes);
      bytes += round_up<std::int64_t>(size, 256);
    };
    const std::int64_t scales = task.batch * task.kv_heads * 4;
    take(pool, pages * layout.bytes());
    take(table, pages * std::int64_t{sizeof(void*)});
    take(row_begin, (task.batch + 1) * 4);
    take(past, task.batch * 4);
    take(query_amax, scales);
    take(amax, scales);
    take(descale, scales);
    take(q, task.batch * task.seq * task.heads * task.dim * 2);
  }
};

__global__ void place_sequences(const __grid_constant__ Parts parts, std::int64_t batch, std::int64_t seq) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < parts.pages) parts.table[i] = parts.pool + i * parts.layout.bytes();
  if (i <= batch) parts.row_begin[i] = static_cast<std::int32_t>(i * seq);
  if (i < batch) parts.past[i] = 0;
}

}  // namespace

std::int64_t attend_heads_workspace(const HeadsAttentionTask& task) { return Parts(task, nullptr).bytes; }

void attend_heads(const HeadsAttentionTask& task, StreamHandle stream) {
  const Parts parts(task, task.workspace);
  const std::int64_t width = task.heads * task.dim;
  place_sequences<<<static_cast<unsigned>(ceil_div<std::int64_t>(std::max(parts.pages, task.batch + 1), 256)), 256, 0,
                    stream>>>(parts, task.batch, task.seq);
  check_launch("place_sequences");
  const KvPages kv{parts.layout, parts.table, parts.pages_each, 0};
  HeadsTask heads{.x = task.q,
                  .batch = task.batch,
                  .seq = task.seq,
                  .heads = task.heads,
                  .dim = task.dim,
                  .heads_per_scale = task.heads / task.kv_heads,
                  .cos = task.cos,
                  .sin = task.sin,
                  .interleaved = task.interleaved,
                  .hadamard = task.hadamard_keys,
                  .rotated = parts.q,
                  .descale = parts.descale,
                  .amax = parts.query_amax};
  rope_cast(heads, stream);
  heads.x = task.k;
  heads.heads = task.kv_heads;
  heads.heads_per_scale = 1;
  heads.rotated = nullptr;
  heads.kv = kv;
  heads.amax = parts.amax;
  rope_cast(heads, stream);
  heads.x = task.v;
  heads.cos = heads.sin = nullptr;
  heads.hadamard = task.hadamard_values;
  heads.are_values = true;
  rope_cast(heads, stream);
  attend_prefill({.q = parts.q,
                  .q_stride = width,
                  .out = task.out,
                  .out_stride = width,
                  .kv = kv,
                  .heads = task.heads,
                  .scale = task.scale,
                  .causal = task.causal,
                  .e4m3 = true,
                  .query_amax = reinterpret_cast<const float*>(parts.query_amax),
                  .hadamard = task.hadamard_values,
                  .row_begin = parts.row_begin,
                  .past = parts.past,
                  .sequences = task.batch,
                  .rows = task.batch * task.seq},
                 stream);
}

}  // namespace lowp::kernels::cuda
