#include "lowp/base/error.h"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/routing.h"
#include "lowp/kernels/routing.h"

namespace lowp::kernels::cuda {
namespace {

// A group of rows is a block of the first kernel and a bit mask for each expert.
constexpr int kGroup = 32, kThreads = kGroup * 32;

struct Args {
  RouteTask task;
  int groups;
  // [experts, groups] in the workspace, where there are several groups: whose rows come, and visits before the group's.
  std::uint32_t* masks;
  std::uint32_t* before;
};

// The warp's row. Leaves experts in place of places.
template <int kEach>  // experts of a lane
__device__ void choose(const RouteTask& task, std::int64_t row, std::uint32_t* masks) {
  const RoutedRows& to = task.to;
  const int lane = static_cast<int>(threadIdx.x) % 32, experts = static_cast<int>(to.experts),
            top = static_cast<int>(to.top);
  std::int32_t* visits = to.visits + row * top;
  if (task.positions && task.positions[row] < 0) {
    if (lane < top) {
      visits[lane] = -1;
      to.weights[row * top + lane] = 0;
    }
    return;
  }
  const auto* scores = static_cast<const std::uint16_t*>(task.scores) + row * experts;
  float p[kEach], largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = i * 32 + lane;
    p[i] = e < experts ? bits_float(static_cast<std::uint32_t>(scores[e]) << 16) : -INFINITY;
    largest = fmaxf(largest, p[i]);
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, mask));
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    p[i] = i * 32 + lane < experts ? router_exp(p[i], largest) : 0;
    sum += p[i];
  }
#pragma unroll
  for (int mask = kRouterLanes / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
  // 0: not there, or taken.
  std::uint32_t key[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i)
    key[i] = i * 32 + lane < experts ? (float_bits(formats::divide(p[i], sum)) & 0x7FFFFFFFu) + 1 : 0;
  float kept = 0, weight = 0;
  int expert = 0;
  for (int c = 0; c < top; ++c) {
    std::uint32_t best = 0, at = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (key[i] > best) best = key[i], at = static_cast<std::uint32_t>(i * 32 + lane);
    const std::uint32_t most = __reduce_max_sync(~0u, best);
    const auto chosen = static_cast<int>(__reduce_min_sync(~0u, best == most ? at : ~0u));
    const float value = bits_float(most - 1);
    kept += value;
    if (lane == c) expert = chosen, weight = value;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (i * 32 + lane == chosen) key[i] = 0;
  }
  int rank = 0;
  for (int c = 0; c < top; ++c) rank += __shfl_sync(~0u, expert, c) < expert;
  if (lane >= top) return;
  visits[rank] = expert;
  if (task.normalize) weight = formats::divide(weight, kept);
  to.weights[row * top + rank] = task.round_weights ? round_bf16(weight) : weight;
  atomicOr(masks + expert, 1u << (row % kGroup));
}

// From the masks of all groups: lists, and places in place of experts. One block; masks and `before` of one group are
// its own.
__device__ void place(const Args& args, const std::uint32_t* masks, std::uint32_t (&counts)[kMostExperts]) {
  __shared__ std::int32_t first[kMostExperts];
  __shared__ unsigned long long totals[kThreads / 32];
  const RoutedRows& to = args.task.to;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, groups = args.groups,
            experts = static_cast<int>(to.experts);
  if (groups == 1) {
    if (thread < experts) counts[thread] = static_cast<std::uint32_t>(__popc(masks[thread]));
  } else {
    for (int e = warp; e < experts; e += kThreads / 32) {
      std::uint32_t all = 0;
      for (int begin = 0; begin < groups; begin += 32) {
        const int g = begin + lane;
        const auto own = g < groups ? static_cast<std::uint32_t>(__popc(masks[e * groups + g])) : 0u;
        std::uint32_t sum = own;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const std::uint32_t other = __shfl_up_sync(~0u, sum, step);
          if (lane >= step) sum += other;
        }
        if (g < groups) args.before[e * groups + g] = all + sum - own;
        all += __shfl_sync(~0u, sum, 31);
      }
      if (lane == 0) counts[e] = all;
    }
  }
  __syncthreads();
  // Where experts' places and blocks begin: both sums in one word.
  const int size = thread < experts ? static_cast<int>(counts[thread]) : 0;
  const unsigned long long own = static_cast<unsigned long long>(ceil_div(size, to.block_rows)) << 32 |
                                 static_cast<unsigned>(round_up(size, to.align));
  unsigned long long sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) totals[warp] = sum;
  __syncthreads();
  const int warps = ceil_div(experts, 32);
  unsigned long long all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w == warp) sum += all;
    all += totals[w];
  }
  const auto places = static_cast<int>(all & 0xFFFFFFFFu), blocks = static_cast<int>(all >> 32);
  if (thread < experts) {
    const auto begin = static_cast<int>((sum - own) & 0xFFFFFFFFu);
    int block = static_cast<int>((sum - own) >> 32);
    first[thread] = begin;
    to.expert_first[thread] = begin;
    to.expert_size[thread] = size;
    for (int at = 0; at < size; at += to.block_rows, ++block) {
      to.block_expert[block] = thread;
      to.block_first[block] = begin + at;
      to.block_size[block] = min(to.block_rows, size - at);
    }
    for (int at = size; at < round_up(size, to.align); ++at) to.place_row[begin + at] = -1;
  }
  if (thread == 0) *to.block_count = blocks;
  for (int i = blocks + thread; i < to.blocks(); i += kThreads) to.block_expert[i] = -1;
  for (int i = places + thread; i < to.places(); i += kThreads) to.place_row[i] = -1;
  __syncthreads();
  const int top = static_cast<int>(to.top), visits = static_cast<int>(to.rows) * top;
  for (int i = thread; i < visits; i += kThreads) {
    const int row = i / top, expert = to.visits[i];
    if (expert < 0) continue;
    const int at = groups == 1 ? expert : expert * groups + row / kGroup;
    const std::uint32_t earlier = masks[at] & ((1u << (row % kGroup)) - 1);
    const int to_place = first[expert] + (groups == 1 ? 0 : static_cast<int>(args.before[at])) + __popc(earlier);
    to.visits[i] = to_place;
    to.place_row[to_place] = row;
  }
}

template <int kEach>
__global__ void __launch_bounds__(kThreads) choose_rows(const __grid_constant__ Args args) {
  __shared__ std::uint32_t masks[kMostExperts], counts[kMostExperts];
  ptx::launch_dependents();
  const int thread = static_cast<int>(threadIdx.x), experts = static_cast<int>(args.task.to.experts);
  for (int e = thread; e < experts; e += kThreads) masks[e] = 0;
  __syncthreads();
  ptx::wait_for_predecessor();
  const std::int64_t row = std::int64_t{blockIdx.x} * kGroup + thread / 32;
  if (row < args.task.to.rows) choose<kEach>(args.task, row, masks);
  __syncthreads();
  if (args.groups == 1) return place(args, masks, counts);
  for (int e = thread; e < experts; e += kThreads) args.masks[e * args.groups + blockIdx.x] = masks[e];
}

__global__ void __launch_bounds__(kThreads) place_rows(const __grid_constant__ Args args) {
  __shared__ std::uint32_t counts[kMostExperts];
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  place(args, args.masks, counts);
}

int groups_of(const RoutedRows& rows) { return static_cast<int>(ceil_div<std::int64_t>(rows.rows, kGroup)); }

}  // namespace

std::int64_t route_workspace(const RoutedRows& rows) { return 2 * rows.experts * groups_of(rows) * 4; }

void route(const RouteTask& task, StreamHandle stream) {
  const RoutedRows& to = task.to;
  LOWP_CHECK(to.experts <= kMostExperts && to.top <= kMostChosen && to.top <= to.experts, "{} of {} experts", to.top,
             to.experts);
  if (to.rows == 0) return;
  const int groups = groups_of(to);
  auto* masks = static_cast<std::uint32_t*>(task.workspace);
  const Args args{task, groups, masks, masks + to.experts * groups};
  launch_early(to.experts <= 128 ? choose_rows<4> : choose_rows<kMostExperts / 32>, groups, kThreads, args, stream);
  if (groups > 1) launch_early(place_rows, 1, kThreads, args, stream);
}

}  // namespace lowp::kernels::cuda
