// Which experts rows go to, found on the GPU: models/routing.h to the bit at bf16, and the lists that products over
// experts work from. Nothing is known to the host, so that a step can be recorded.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// A row's visits to its experts stand at `places`: in the order of experts, of one expert in that of rows. An expert's
/// places begin at a multiple of `align` and are cut into blocks of up to `block_rows`. In device memory.
struct RoutedRows {
  std::int64_t rows = 0, experts = 0, top = 0;
  int align = 1, block_rows = 8;

  std::int32_t* place_row = nullptr;     // [places()]: whose visit stands there, -1: nobody's
  std::int32_t* visits = nullptr;        // [rows, top]: places, by ascending expert; -1 of rows that go nowhere
  float* weights = nullptr;              // [rows, top]: of the visits
  std::int32_t* block_expert = nullptr;  // [blocks()]; -1 from *block_count on
  std::int32_t* block_first = nullptr;   // [blocks()]: first place
  std::int32_t* block_size = nullptr;    // [blocks()]: places
  std::int32_t* block_count = nullptr;   // [1]
  std::int32_t* expert_first = nullptr;  // [experts]: first place
  std::int32_t* expert_size = nullptr;   // [experts]: visits

  /// The most places and blocks that the rows can need.
  LOWP_HD constexpr std::int64_t places() const {
    return round_up<std::int64_t>(rows * top + active() * (align - 1), align);
  }
  LOWP_HD constexpr std::int64_t blocks() const { return active() + ceil_div<std::int64_t>(rows * top, block_rows); }

 private:
  LOWP_HD constexpr std::int64_t active() const { return std::min(experts, rows * top); }
};

/// Most experts, and most of them for a row.
inline constexpr std::int64_t kMostExperts = 512, kMostChosen = 32;

/// For each row the `top` likeliest experts (of equals the lower) by the softmax of its scores; the weights are
/// divided by their sum if `normalize`, then rounded to bf16 if `round_weights`.
struct RouteTask {
  const void* scores = nullptr;             // bf16 [rows, experts]
  const std::int32_t* positions = nullptr;  // [rows], or null; a row with a negative one goes nowhere
  bool normalize = true;
  bool round_weights = true;
  RoutedRows to;
  void* workspace = nullptr;  // route_workspace() bytes
};
std::int64_t route_workspace(const RoutedRows& rows);
/// Enqueues it: one kernel up to 32 rows, else two. They take part in programmatic dependent launch.
void route(const RouteTask& task, StreamHandle stream);

/// A norm, a router's product and route() of few rows as one kernel: a block for each expert, of which the last one to
/// end routes. Sums of the scores run in an order of their own.
struct RouterTask {
  AddNormTask norm;               // of as many rows, out and sum are written; sum is not stream
  const void* weight = nullptr;   // bf16 [experts, norm.width]
  const void* bias = nullptr;     // bf16 [experts], or null
  void* scores = nullptr;         // bf16 [rows, experts]
  std::uint32_t* ended = nullptr;  // zero before the first call, and after each
  RouteTask route;                // of these scores
};
inline constexpr std::int64_t kMostRouterRows = 4;
void norm_and_route(const RouterTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
