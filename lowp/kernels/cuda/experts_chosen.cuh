// What a block knows of the choices of few rows, found out from the scores by every block itself: which experts rows go
// to ("blocks", in the order of experts), and the places of their visits, those of route() with align 1.
#pragma once

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/gemv_input.cuh"
#include "lowp/kernels/cuda/routing.cuh"

namespace lowp::kernels::cuda {

struct FewChosen {
  std::uint32_t bits[kMostFewRows][kMostFewExperts / 32];  // by row: its experts
  float weights[kMostFewPlaces];                           // [rows, top], by ascending expert
  std::int16_t expert_of[kMostFewPlaces], first_of[kMostFewPlaces], size_of[kMostFewPlaces];  // by block
  std::int16_t row_of[kMostFewPlaces], expert_at[kMostFewPlaces];                             // by place
  float weight_at[kMostFewPlaces];
  std::int16_t place_of[kMostFewPlaces];  // [rows, top], -1 of nobody's
  int blocks, places;

  /// By the whole block: a warp for each row, which asks scores(row, its experts' to be filled in). One thread calls
  /// counted(), when blocks and places are known. Ends with a barrier.
  template <class Scores, class Counted>
  __device__ __forceinline__ void choose(const ExpertChoice& choice, int rows, int experts, int top,
                                         const Scores& scores, const Counted& counted) {
    static_assert(kGemvWarps >= kMostFewRows && kGemvThreads >= kMostFewExperts && kGemvThreads >= kMostFewPlaces);
    const int thread = static_cast<int>(threadIdx.x), row = thread / 32;
    if (thread < kMostFewPlaces) place_of[thread] = -1;
    if (row < rows) {
      if (experts <= 128)
        choose_for<4>(choice, row, experts, top, scores);
      else
        choose_for<kMostFewExperts / 32>(choice, row, experts, top, scores);
    }
    __syncthreads();
    if (thread < round_up(experts, 32)) list(thread, rows, experts, top, counted);
    __syncthreads();
  }

 private:
  template <int kEach, class Scores>
  __device__ __forceinline__ void choose_for(const ExpertChoice& choice, int row, int experts, int top,
                                             const Scores& scores) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (is_nobodys(choice, row)) {
      if (lane < kEach) bits[row][lane] = 0;
      return;
    }
    float score[kEach];
    scores(row, score);
    const auto chosen = choose_experts(choice, experts, top, score);
    if (lane < top) weights[row * top + chosen.rank] = chosen.weight;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (lane == i) bits[row][i] = chosen.bits[i];
  }

  // An expert's block and places.
  template <class Counted>
  __device__ __forceinline__ void list(int expert, int rows, int experts, int top, const Counted& counted) {
    const int word = expert / 32;
    const std::uint32_t bit = 1u << expert % 32, below = bit - 1;
    std::uint32_t all = 0;
    int block = 0, place = 0, size = 0;
#pragma unroll 1
    for (int w = 0; w < word; ++w) {
      std::uint32_t any = 0;
#pragma unroll 1
      for (int r = 0; r < rows; ++r) {
        any |= bits[r][w];
        place += __popc(bits[r][w]);
      }
      block += __popc(any);
    }
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
      const std::uint32_t own = bits[r][word];
      all |= own;
      place += __popc(own & below);
      size += (own & bit) != 0;
    }
    block += __popc(all & below);
    if (expert == round_up(experts, 32) - 1) {
      blocks = block + (size > 0);
      places = place + size;
      counted();
    }
    if (size == 0) return;
    expert_of[block] = static_cast<std::int16_t>(expert);
    first_of[block] = static_cast<std::int16_t>(place);
    size_of[block] = static_cast<std::int16_t>(size);
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
      if (!(bits[r][word] & bit)) continue;
      int visit = r * top + __popc(bits[r][word] & below);
      for (int w = 0; w < word; ++w) visit += __popc(bits[r][w]);
      row_of[place] = static_cast<std::int16_t>(r);
      expert_at[place] = static_cast<std::int16_t>(expert);
      weight_at[place] = weights[visit];
      place_of[visit] = static_cast<std::int16_t>(place++);
    }
  }
};

}  // namespace lowp::kernels::cuda
