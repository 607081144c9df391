#include "lowp/kernels/cuda/sample_launch.h"
#include "lowp/kernels/cuda/sample_row.cuh"

namespace lowp::kernels::cuda {
namespace {

// Writes the row's logits as masks and edits leave them. False where a logit as it was is NaN.
__device__ bool change(const SampleTask& task, const Draw& d, const RowLogits& row, float* to) {
  bool wrong = false;
  const std::uint32_t* words = d.allowed < 0 ? nullptr : task.allowed + d.allowed;
  row.each([&](int id, float x) {
    wrong |= x != x;
    to[id] = !words || words[id / 32] >> (id % 32) & 1 ? x : -INFINITY;
  });
  wrong = __syncthreads_or(wrong);
  for (int i = d.edits + static_cast<int>(threadIdx.x); i < d.edits_end; i += kRowThreads) {
    const LogitEdit& edit = task.edits[i];
    if (edit.id >= 0 && edit.id < row.limit && to[edit.id] > -INFINITY) to[edit.id] = edited(to[edit.id], edit);
  }
  __syncthreads();
  return !wrong;
}

// The id at which the running sum of the weights from `cut` on passes the share `uniform` of all. A warp has a stretch
// of neighbouring ids.
__device__ std::int32_t pick(const RowLogits& logits, const Row& row, std::uint64_t cut, const Draw& d, RowShared& s) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int each = (logits.chunks() + kRowWarps - 1) / kRowWarps, begin = warp * each,
            end = min(begin + each, logits.chunks());
  const float least = cut ? logit_of_order(cut) : -INFINITY;
  const auto weight = [&](int id, float x) -> std::uint64_t {
    if (!(x >= least) || !(x > -INFINITY) || token_order(x, static_cast<std::uint32_t>(id)) < cut) return 0;
    const float w = row.weight(x);
    return w < d.min_p ? 0 : Row::integer(w);
  };
  std::uint64_t mine = 0;
  logits.each(begin + lane, end, 32, [&](int id, float x) { mine += weight(id, x); });
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) mine += __shfl_xor_sync(~0u, mine, mask);
  __syncthreads();  // the sums before have been read
  if (lane == 0) s.weights[warp] = mine;
  __syncthreads();
  std::uint64_t total = 0, before = 0;
  for (int w = 0; w < kRowWarps; ++w) {
    if (w == warp) before = total;
    total += s.weights[w];
  }
  const std::uint64_t target = min(static_cast<std::uint64_t>(d.uniform * static_cast<double>(total)), total - 1);
  if (target < before || target - before >= mine) return -1;
  for (int chunk = begin; chunk < end; chunk += 32) {
    std::uint64_t own = 0;
    logits.each(chunk + lane, min(chunk + lane + 1, end), 1, [&](int id, float x) { own += weight(id, x); });
    std::uint64_t upto = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const std::uint64_t other = __shfl_up_sync(~0u, upto, step);
      if (lane >= step) upto += other;
    }
    std::int32_t found = -1;
    if (target >= before + upto - own && target < before + upto) {
      std::uint64_t sum = before + upto - own;
      logits.each(chunk + lane, chunk + lane + 1, 1, [&](int id, float x) {
        sum += weight(id, x);
        if (found < 0 && sum > target) found = id;
      });
    }
    if (__any_sync(~0u, found >= 0)) return found;
    before += __shfl_sync(~0u, upto, 31);
  }
  return -1;
}

// A block a draw.
__global__ void __launch_bounds__(kRowThreads) draw(const __grid_constant__ SampleTask task) {
  __shared__ RowShared shared;
  const Draw& d = task.draws[blockIdx.x];
  RowLogits logits{static_cast<const std::uint16_t*>(task.logits) + d.row * task.vocab, nullptr,
                   static_cast<int>(task.limit)};
  std::int32_t* token = task.token + blockIdx.x;
  if (threadIdx.x == 0) *token = -1;
  if (d.changed >= 0) {
    float* to = task.changed + d.changed * task.vocab;
    if (!change(task, d, logits, to)) return;
    logits.f32 = to;
  }
  Row row(logits, d.temperature, shared);
  if (!row.look()) return;
  std::int32_t found = -1;
  if (d.temperature == 0) {
    if (threadIdx.x == 0) found = row.likeliest();
  } else {
    std::uint64_t cut = 0;
    RowSum kept;
    if (d.top_k > 0 && static_cast<std::uint32_t>(d.top_k) < row.finite())
      cut = row.cut_count(static_cast<std::uint32_t>(d.top_k), kept);
    if (d.top_p < 1) cut = row.cut_share(d.top_p, cut, kept);
    found = pick(logits, row, cut, d, shared);
  }
  if (found >= 0) *token = found;
}

}  // namespace

void launch_sample(const SampleTask& task, StreamHandle stream) {
  draw<<<static_cast<unsigned>(task.count), kRowThreads, 0, stream>>>(task);
  check_launch("sample");
}

}  // namespace lowp::kernels::cuda
