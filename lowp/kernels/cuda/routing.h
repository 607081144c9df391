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

/// How rows choose: the likeliest experts (of equals the lower) by the softmax of their scores. The weights are divided
/// by their sum if `normalize`, then rounded to bf16 if `round_weights`.
struct ExpertChoice {
  const void* scores = nullptr;             // bf16 [rows, experts]
  const std::int32_t* positions = nullptr;  // [rows], or null; a row with a negative one goes nowhere
  bool normalize = true;
  bool round_weights = true;
};

/// Finds the lists of rows that choose.
struct RouteTask {
  ExpertChoice choice;
  RoutedRows to;
  void* workspace = nullptr;  // route_workspace() bytes
};
std::int64_t route_workspace(const RoutedRows& rows);
/// Enqueues it: one kernel up to 32 rows, else two. They take part in programmatic dependent launch.
void route(const RouteTask& task, StreamHandle stream);

/// A norm and a router's product of few rows as one kernel: a block for each score. Sums run in an order of their own.
struct RouterTask {
  AddNormTask norm;              // its out and its sum, which is not its stream, are written
  const void* weight = nullptr;  // bf16 [experts, norm.width]
  const void* bias = nullptr;    // bf16 [experts], or null
  std::int64_t experts = 0;
  void* scores = nullptr;  // bf16 [norm.rows, experts]
};
void norm_and_score(const RouterTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
