// The likeliest token of each row. A block takes a part of a row; the one that ends last joins the parts in order.
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/cuda/token_order.cuh"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256, kChunksEach = 4, kPart = kThreads * kChunksEach * 8;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// What is known of some logits: the likeliest id below the limit, and the sum of 2^((x - most) log2 e) over all.
struct Found {
  std::uint64_t best;   // ordered: first by logit, then by the lower id; 0: none
  float most, sum;      // most: -inf where there is nothing yet
  std::uint32_t wrong;  // NaN or +infinity was seen

  __device__ __forceinline__ void add(const Found& other) {
    best = max(best, other.best);
    wrong |= other.wrong;
    const float top = fmaxf(most, other.most);
    const auto part = [&](const Found& f) {
      return f.most == -INFINITY ? 0.0f : f.sum * ptx::ex2_approx((f.most - top) * kLog2e);
    };
    sum = part(*this) + part(other);
    most = top;
  }
  __device__ __forceinline__ void add_across(int mask) {
    Found other;
    other.best = __shfl_xor_sync(0xFFFFFFFFu, best, mask);
    other.most = __shfl_xor_sync(0xFFFFFFFFu, most, mask);
    other.sum = __shfl_xor_sync(0xFFFFFFFFu, sum, mask);
    other.wrong = __shfl_xor_sync(0xFFFFFFFFu, wrong, mask);
    add(other);
  }
};
LOWP_HD constexpr std::int64_t row_bytes(std::int64_t parts) { return 8 + parts * std::int64_t{sizeof(Found)}; }

__device__ __forceinline__ Found over_warp(Found found) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) found.add_across(mask);
  return found;
}

// In the workspace each row has what it counts by and its parts together, so that calls may differ in their rows.
struct Args {
  ArgmaxTask task;
  int parts;

  __device__ std::uint32_t* ended(std::int64_t row) const {
    return reinterpret_cast<std::uint32_t*>(static_cast<std::uint8_t*>(task.workspace) + row * row_bytes(parts));
  }
  __device__ Found* found(std::int64_t row) const { return reinterpret_cast<Found*>(ended(row) + 2); }
};

__global__ void __launch_bounds__(kThreads) find(const __grid_constant__ Args args) {
  __shared__ Found warps[kThreads / 32];
  __shared__ bool last;
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  const ArgmaxTask& task = args.task;
  const std::int64_t row = blockIdx.x / args.parts, part = blockIdx.x % args.parts;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  float x[kChunksEach][8];
#pragma unroll
  for (int i = 0; i < kChunksEach; ++i) {
    const std::int64_t at = part * kPart + (i * kThreads + static_cast<int>(threadIdx.x)) * 8;
#pragma unroll
    for (float& v : x[i]) v = -INFINITY;
    if (at < task.vocab) load_written(task.logits, row * task.vocab + at).values(x[i]);
  }
  Found mine{0, -INFINITY, 0, 0};
#pragma unroll
  for (int i = 0; i < kChunksEach; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const std::int64_t id = part * kPart + (i * kThreads + static_cast<int>(threadIdx.x)) * 8 + j;
      mine.wrong |= !(x[i][j] < INFINITY);
      mine.most = fmaxf(mine.most, x[i][j]);
      if (id < task.limit && x[i][j] > -INFINITY)
        mine.best = max(mine.best, token_order(x[i][j], static_cast<std::uint32_t>(id)));
    }
  if (task.logprob && mine.most > -INFINITY) {
#pragma unroll
    for (int i = 0; i < kChunksEach; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) mine.sum += ptx::ex2_approx((x[i][j] - mine.most) * kLog2e);
  }
  mine = over_warp(mine);
  if (lane == 0) warps[warp] = mine;
  __syncthreads();
  if (warp > 0) return;
  const Found none{0, -INFINITY, 0, 0};
  mine = over_warp(lane < kThreads / 32 ? warps[lane] : none);
  if (lane == 0) {
    args.found(row)[part] = mine;
    __threadfence();
    last = atomicAdd(args.ended(row), 1) + 1 == static_cast<std::uint32_t>(args.parts);
  }
  __syncwarp();
  if (!last) return;
  __threadfence();
  Found all = none;
  for (int p = lane; p < args.parts; p += 32) {
    const volatile Found& f = args.found(row)[p];
    all.add({f.best, f.most, f.sum, f.wrong});
  }
  all = over_warp(all);
  if (lane != 0) return;
  *args.ended(row) = 0;
  const bool none_found = all.wrong || all.best == 0;
  task.token[row] = none_found ? -1 : id_of_order(all.best);
  if (!task.logprob) return;
  task.logprob[row] = none_found ? NAN : (logit_of_order(all.best) - all.most) - log2f(all.sum) * kLn2;
}

}  // namespace

std::int64_t argmax_workspace(std::int64_t rows, std::int64_t vocab) {
  return rows * row_bytes(ceil_div<std::int64_t>(vocab, kPart));
}

void launch_argmax(const ArgmaxTask& task, StreamHandle stream) {
  Args args{task, static_cast<int>(ceil_div<std::int64_t>(task.vocab, kPart))};
  if (args.task.limit <= 0 || args.task.limit > task.vocab) args.task.limit = task.vocab;
  launch_early(find, task.rows * args.parts, kThreads, args, stream);
}

}  // namespace lowp::kernels::cuda
