// Products of rows with the packed weights (gemm_packed_layout.h) of the experts that they go to.
#pragma once

#include <cstdint>
#include <string>

#include "lowp/kernels/cuda/gemm_packed_layout.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/routing.h"

namespace lowp::kernels::cuda {

/// y[p] = x_scale * row_scale * sum over k of x[p] W_e + bias_e for the places p of each expert e, or, of gate and up,
/// activation(gate) * up of that. An expert's weight is [n, k], its outputs padded to tiles of 16, one expert after the
/// other; k is a multiple of 16, n of 8 (of 16, if gated: gate and up by turns, eight and eight).
struct ExpertsProduct {
  Codes codes = Codes::bf16;
  Scales scales = Scales::none;
  std::int64_t n = 0, k = 0;
  RoutedRows rows = {};
  const void* x = nullptr;         // bf16, e4m3 with Codes::e2m1_folded; [places, k], or where it is said [rows, k]
  const float* x_scale = nullptr;  // or null; of row i of x at i * x_scale_step
  int x_scale_step = 1;
  const std::uint8_t* units = nullptr;
  const float* row_scale = nullptr;  // [experts, tiles * 16]
  const void* bias = nullptr;        // bf16 [experts, n], or null
  bool gated = false;
  GateActivation gate = GateActivation::silu;
  void* y = nullptr;  // bf16 [places, n], gated: [places, n / 2]
};

/// Most places, and experts, of the products of few rows.
inline constexpr std::int64_t kMostFewPlaces = 128, kMostFewExperts = 256;

/// Whether experts_of_few() and combine_experts_of_few() take so many rows: up to 8, whose activations leave room in
/// shared memory.
bool experts_are_few(const ExpertsProduct& gate_up, const ExpertsProduct& down);

/// Few rows, of x [rows, k]: the gated product. Every block chooses by itself: of `rows` only the numbers are read, and
/// places are those of route() with align 1.
void experts_of_few(const ExpertsProduct& product, const ExpertChoice& choice, StreamHandle stream);
/// Few rows, from x [places, k]: their visits' products, weighed and added as combine() does: y [rows, n]. It follows
/// experts_of_few(), before whose kernel the scores were there.
void combine_experts_of_few(const ExpertsProduct& product, const ExpertChoice& choice, StreamHandle stream);

/// RoutedRows::block_rows that suits so many visits: 16, 64 or 128.
int experts_block_rows(std::int64_t visits, std::int64_t experts);
/// Any number of rows, of x [places, k].
void experts_of_many(const ExpertsProduct& product, StreamHandle stream);

}  // namespace lowp::kernels::cuda
