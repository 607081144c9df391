#include "lowp/kernels/cuda/sample_launch.h"
#include "lowp/kernels/cuda/sample_row.cuh"

namespace lowp::kernels::cuda {
namespace {

// The logarithm of the sum of e^x over all of a row, by threads in a fixed order, f64.
__device__ double log_sum(RowLogits logits, RowShared& s, double* sums) {
  float most = -INFINITY;
  logits.each([&](int, float x) { most = fmaxf(most, x); });
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, mask));
  if (lane == 0) s.most[warp] = most;
  __syncthreads();
  for (int w = 0; w < kRowWarps; ++w) most = fmaxf(most, s.most[w]);
  double sum = 0;
  logits.each([&](int, float x) { sum += static_cast<double>(expf(x - most)); });
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  sum = 0;
  for (int w = 0; w < kRowWarps; ++w) sum += sums[w];
  return static_cast<double>(most) + log(sum);
}

// A block a token.
__global__ void __launch_bounds__(kRowThreads) score_tokens(const __grid_constant__ ScoreTask task) {
  __shared__ RowShared shared;
  __shared__ double sums[kRowWarps];
  __shared__ std::uint64_t listed[ScoreTask::kMostTop];
  __shared__ std::uint32_t count;
  const std::int64_t i = blockIdx.x;
  const std::int32_t token = task.token[i], top = min(task.top[i], static_cast<std::int32_t>(task.listed));
  RowLogits logits{static_cast<const std::uint16_t*>(task.logits) + task.row[i] * task.vocab, nullptr,
                   static_cast<int>(task.vocab)};
  if (token < 0) return;
  const double sum = log_sum(logits, shared, sums);
  const auto logprob = [&](float x) { return static_cast<float>(static_cast<double>(x) - sum); };
  const float own = bits_float(static_cast<std::uint32_t>(logits.bf16[token]) << 16);
  logits.limit = static_cast<int>(task.limit);
  std::uint32_t above = 0;
  logits.each([&](int, float x) { above += x > own; });
  above = block_sum({0, above}, shared).count;
  if (threadIdx.x == 0) {
    task.logprob[i] = logprob(own);
    task.above[i] = static_cast<std::int32_t>(above);
    count = 0;
  }
  if (top <= 0) return;
  Row row(logits, 1, shared);
  const bool fine = row.look();
  std::uint64_t cut = 0;
  RowSum kept;
  const auto wanted = static_cast<std::uint32_t>(top);
  if (fine && wanted < row.finite()) cut = row.cut_count(wanted, kept);
  __syncthreads();
  if (fine)
    logits.each([&](int id, float x) {
      const std::uint64_t order = token_order(x, static_cast<std::uint32_t>(id));
      if (x > -INFINITY && order >= cut) listed[atomicAdd(&count, 1) % ScoreTask::kMostTop] = order;
    });
  __syncthreads();
  const std::uint32_t found = min(count, wanted);
  for (std::uint32_t j = threadIdx.x; j < wanted; j += kRowThreads) {
    std::int32_t* to = task.top_token + i * task.listed;
    if (j >= found) {
      to[j] = -1;
      continue;
    }
    std::uint32_t place = 0;
    for (std::uint32_t k = 0; k < found; ++k) place += listed[k] > listed[j];
    to[place] = id_of_order(listed[j]);
    task.top_logprob[i * task.listed + place] = logprob(logit_of_order(listed[j]));
  }
}

}  // namespace

void launch_score(const ScoreTask& task, StreamHandle stream) {
  score_tokens<<<static_cast<unsigned>(task.count), kRowThreads, 0, stream>>>(task);
  check_launch("score");
}

}  // namespace lowp::kernels::cuda
