#include <cmath>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/sample.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;

__device__ float value(const std::uint16_t* logits, std::int64_t id) {
  return bits_float(static_cast<std::uint32_t>(logits[id]) << 16);
}

// A block for each draw; thread t has the t-th stretch of ids.
__global__ void __launch_bounds__(kThreads) draw(const __grid_constant__ SampleTask task) {
  __shared__ float largest[kWarps];
  __shared__ double sums[kWarps];
  __shared__ int chosen;
  const Draw d = task.draws[blockIdx.x];
  const auto* logits = static_cast<const std::uint16_t*>(task.logits) + d.row * task.vocab;
  const std::int64_t each = (task.limit + kThreads - 1) / kThreads, begin = threadIdx.x * each,
                     end = begin + each < task.limit ? begin + each : task.limit;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x == 0) chosen = -1;

  // NaN wins: it is larger than all as an ordered integer would be, and what follows then chooses nothing.
  float most = -INFINITY;
  for (std::int64_t id = begin; id < end; ++id) {
    const float x = value(logits, id);
    most = x != x || most != most ? NAN : fmaxf(most, x);
  }
  const auto larger = [](float a, float b) { return a != a || b != b ? NAN : fmaxf(a, b); };
  for (int step = 16; step > 0; step /= 2) most = larger(most, __shfl_xor_sync(~0u, most, step));
  if (lane == 0) largest[warp] = most;
  __syncthreads();
  most = largest[0];
  for (int i = 1; i < kWarps; ++i) most = larger(most, largest[i]);
  const float infinite = INFINITY;
  if (!(most < infinite && most > -infinite)) {
    if (threadIdx.x == 0) task.token[blockIdx.x] = -1;
    return;
  }

  const auto weight = [&](std::int64_t id) {
    const float w = expf((value(logits, id) - most) / d.temperature);
    return w < d.min_p ? 0.0f : w;
  };
  double mine = 0;
  for (std::int64_t id = begin; id < end; ++id) mine += weight(id);
  double stop = mine;  // sums of this warp's threads up to this one, later of the block's
  for (int step = 1; step < 32; step *= 2) {
    const double other = __shfl_up_sync(~0u, stop, step);
    if (lane >= step) stop += other;
  }
  double start = __shfl_up_sync(~0u, stop, 1);
  if (lane == 0) start = 0;
  if (lane == 31) sums[warp] = stop;
  __syncthreads();
  double total = 0;
  for (int i = 0; i < kWarps; ++i) {
    if (i == warp) {
      start += total;
      stop += total;
    }
    total += sums[i];
  }
  // A thread starts where the one before it stops, to the bit: one of them has the target, unless that was rounded up
  // to the total.
  const double target = d.uniform * total;
  if (start <= target && target < stop) {
    int last = -1;
    double sum = start;
    for (std::int64_t id = begin; id < end && sum <= target; ++id) {
      const float w = weight(id);
      sum += w;
      if (w > 0) last = static_cast<int>(id);
    }
    chosen = last;
  }
  __syncthreads();
  const bool missed = chosen < 0;
  __syncthreads();
  if (missed) {  // then the last id that may come
    std::int64_t id = end - 1;
    while (id >= begin && !(weight(id) > 0)) --id;
    if (id >= begin) atomicMax(&chosen, static_cast<int>(id));
    __syncthreads();
  }
  if (threadIdx.x == 0) task.token[blockIdx.x] = chosen;
}

}  // namespace

void sample(const SampleTask& task, StreamHandle stream) {
  if (task.count == 0) return;
  draw<<<static_cast<unsigned>(task.count), kThreads, 0, stream>>>(task);
  check_launch("sample");
}

}  // namespace lowp::kernels::cuda
