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

/// Most rows, places and experts of the products of few rows.
inline constexpr std::int64_t kMostFewRows = 8, kMostFewPlaces = 128, kMostFewExperts = 256;

/// Whether there are kernels of few rows for so many, whose activations must leave room in shared memory; and whether
/// both products are one.
bool experts_are_few(const ExpertsProduct& gate_up, const ExpertsProduct& down);
bool experts_are_together(const ExpertsProduct& gate_up, const ExpertsProduct& down);

/// Device memory through which the blocks of experts_of_few() hand each other scores and gated values. It belongs to
/// one stream at a time.
struct ExpertsMail {
  static constexpr std::int64_t kTurns = 128;  // bytes in front of two halves
  void* memory = nullptr;
  std::int64_t score_bytes = 0, half_bytes = 0;  // scores first
};
/// For up to kMostFewRows rows of experts with so many gated values; with its memory, which is made ready.
ExpertsMail experts_mail(std::int64_t experts, std::int64_t top, std::int64_t width, Memory& memory);

/// Few rows through norm, router and experts, one kernel: y [rows, n] as combine() adds. Every block chooses by itself:
/// of `choice` positions and rules are read, of `rows` only the numbers; places are those of route() with align 1.
struct FewExperts {
  ExpertChoice choice;
  const AddNormTask* norm = nullptr;  // or null; its sum is written, its out is not. What it reads is not where y is.
  const void* router = nullptr;       // bf16 [experts, hidden]
  const void* router_bias = nullptr;  // bf16 [experts], or null
  ExpertsProduct gate_up = {};        // of x [rows, hidden], or of what the norm makes; y is not written
  ExpertsProduct down = {};           // of gate_up's; x is not looked at
  ExpertsMail mail = {};
};
void experts_of_few(const FewExperts& task, StreamHandle stream);

/// Few rows, of x [rows, k]: the gated product by itself, after the scores.
void gate_experts_of_few(const ExpertsProduct& product, const ExpertChoice& choice, StreamHandle stream);
/// Few rows, from x [places, k]: their visits' products, weighed and added as combine() does: y [rows, n]. It follows
/// gate_experts_of_few(), before whose kernel the scores were there.
void combine_experts_of_few(const ExpertsProduct& product, const ExpertChoice& choice, StreamHandle stream);

/// RoutedRows::block_rows that suits so many visits: 16, 64 or 128.
int experts_block_rows(std::int64_t visits, std::int64_t experts);
/// Any number of rows, of x [places, k].
void experts_of_many(const ExpertsProduct& product, StreamHandle stream);

}  // namespace lowp::kernels::cuda
