// A row's choice of experts, and the lists of all rows' visits.
#pragma once

#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/routing.h"
#include "lowp/kernels/routing.h"

namespace lowp::kernels::cuda {

/// Rows that share a bit mask for each expert.
inline constexpr int kRouteGroup = 32;

struct RouteArgs {
  RouteTask task;
  int groups;
  // [experts, groups] in the workspace, where there are several groups: whose rows come, and visits before the group's.
  std::uint32_t* masks;
  std::uint32_t* before;
};

/// A warp chooses for a row: its experts, ascending, their weights, and its bit in their masks. Nobody's row: -1.
template <int kEach>  // experts of a lane
__device__ __forceinline__ void choose_experts(const ExpertChoice& choice, int experts, int top, int row,
                                               std::int32_t* chosen, float* weights, std::uint32_t* masks) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto* scores = static_cast<const unsigned short*>(choice.scores) + static_cast<long>(row) * experts;
  const bool nobody = choice.positions && __ldcg(choice.positions + row) < 0;
  float p[kEach], largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = i * 32 + lane;
    p[i] = e < experts ? bits_float(static_cast<std::uint32_t>(__ldcg(scores + e)) << 16) : -INFINITY;
    largest = fmaxf(largest, p[i]);
  }
  if (nobody) {
    if (lane < top) chosen[lane] = -1, weights[lane] = 0;
    return;
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
    key[i] = i * 32 + lane < experts ? (float_bits(__fdiv_rn(p[i], sum)) & 0x7FFFFFFFu) + 1 : 0;
  float kept = 0, weight = 0;
  int expert = 0;
#pragma unroll 1
  for (int c = 0; c < top; ++c) {
    std::uint32_t best = 0, at = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (key[i] > best) best = key[i], at = static_cast<std::uint32_t>(i * 32 + lane);
    const std::uint32_t most = __reduce_max_sync(~0u, best);
    const auto taken = static_cast<int>(__reduce_min_sync(~0u, best == most ? at : ~0u));
    const float value = bits_float(most - 1);
    kept += value;
    if (lane == c) expert = taken, weight = value;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (i * 32 + lane == taken) key[i] = 0;
  }
  int rank = 0;
#pragma unroll 1
  for (int c = 0; c < top; ++c) rank += __shfl_sync(~0u, expert, c) < expert;
  if (lane >= top) return;
  if (choice.normalize) weight = __fdiv_rn(weight, kept);
  chosen[rank] = expert;
  weights[rank] = choice.round_weights ? round_bf16(weight) : weight;
  atomicOr(masks + expert, 1u << (row % kRouteGroup));
}

// From the masks of all groups: lists, and places in place of experts. One block of any number of whole warps; the
// masks of one group are its own.
__device__ inline void place_visits(const RouteArgs& args, const std::uint32_t* masks) {
  __shared__ std::int32_t size_of[kMostExperts], first_of[kMostExperts];
  __shared__ unsigned long long totals[32];
  const RoutedRows& to = args.task.to;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), lane = thread % 32,
            warp = thread / 32, groups = args.groups, experts = static_cast<int>(to.experts);
  if (groups == 1) {
    for (int e = thread; e < experts; e += threads) size_of[e] = __popc(masks[e]);
  } else {
    for (int e = warp; e < experts; e += threads / 32) {
      int all = 0;
      for (int begin = 0; begin < groups; begin += 32) {
        const int g = begin + lane, own = g < groups ? __popc(masks[e * groups + g]) : 0;
        int sum = own;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const int other = __shfl_up_sync(~0u, sum, step);
          if (lane >= step) sum += other;
        }
        if (g < groups) args.before[e * groups + g] = static_cast<std::uint32_t>(all + sum - own);
        all += __shfl_sync(~0u, sum, 31);
      }
      if (lane == 0) size_of[e] = all;
    }
  }
  __syncthreads();
  // Where places and blocks begin, both in one word: of each thread's stretch of experts.
  const int each = ceil_div(experts, threads), begin = thread * each, end = min(experts, begin + each);
  const auto needs = [&](int e) {
    return static_cast<unsigned long long>(ceil_div(size_of[e], to.block_rows)) << 32 |
           static_cast<unsigned>(round_up(size_of[e], to.align));
  };
  unsigned long long own = 0;
  for (int e = begin; e < end; ++e) own += needs(e);
  unsigned long long sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) totals[warp] = sum;
  __syncthreads();
  unsigned long long all = 0;
  for (int w = 0; w < threads / 32 && (w == 0 || 32 * w * each < experts); ++w) {
    if (w == warp) sum += all;
    all += totals[w];
  }
  const auto places = static_cast<int>(all & 0xFFFFFFFFu), blocks = static_cast<int>(all >> 32);
  unsigned long long next = sum - own;
  for (int e = begin; e < end; next += needs(e), ++e) {
    const int first = static_cast<int>(next & 0xFFFFFFFFu), size = size_of[e];
    int block = static_cast<int>(next >> 32);
    first_of[e] = first;
    to.expert_first[e] = first;
    to.expert_size[e] = size;
    for (int at = 0; at < size; at += to.block_rows, ++block) {
      to.block_expert[block] = e;
      to.block_first[block] = first + at;
      to.block_size[block] = min(to.block_rows, size - at);
    }
    for (int at = size; at < round_up(size, to.align); ++at) to.place_row[first + at] = -1;
  }
  if (thread == 0) *to.block_count = blocks;
  for (int i = blocks + thread; i < to.blocks(); i += threads) to.block_expert[i] = -1;
  for (int i = places + thread; i < to.places(); i += threads) to.place_row[i] = -1;
  __syncthreads();
  const int top = static_cast<int>(to.top), visits = static_cast<int>(to.rows) * top;
  for (int i = thread; i < visits; i += threads) {
    const int row = i / top, expert = __ldcg(to.visits + i);
    if (expert < 0) continue;
    const int at = groups == 1 ? expert : expert * groups + row / kRouteGroup;
    const std::uint32_t earlier = masks[at] & ((1u << (row % kRouteGroup)) - 1);
    const int place = first_of[expert] + (groups == 1 ? 0 : static_cast<int>(args.before[at])) + __popc(earlier);
    to.visits[i] = place;
    to.place_row[place] = row;
  }
}

}  // namespace lowp::kernels::cuda
