// What a decoder does between its matrix products, on the GPU: kernels/cpu/elementwise.h over whole batches.
//
// Activations are bf16 in and out; the arithmetic is f32, rounded to bf16 where the CPU's forward pass in bf16 rounds
// (models/forward.cpp). All pointers are to device memory, 16-byte aligned; widths and strides are multiples of 8 and
// count values. What changes from step to step (tokens, positions, pages) is in device memory, so that a recorded step
// can be replayed: `rows` is how many rows are computed, and rows beyond those that a step needs do no harm where they
// carry a negative token or position.
//
// Every kernel waits for its predecessor by itself and lets its successor begin early (programmatic dependent launch).
// Before it waits it may read what was there before the step began: weights, tables, and of rotate_store() positions,
// sequences and the addresses of pages, which no kernel of the stream may write.
// No call allocates or waits; a wrong size is a broken promise of the caller's and aborts.
#pragma once

#include <cstdint>

#include "lowp/formats/block.h"
#include "lowp/kernels/cuda/kv_pages.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/kernels/gate.h"

namespace lowp::kernels::cuda {

/// Longest row of add_norm() and cast_rows(), in values.
inline constexpr std::int64_t kMostRow = 16384;

/// out[r] = bf16(table[tokens[r]] * scale); zeros where tokens[r] is not a row of the table.
struct GatherTask {
  const void* table = nullptr;  // bf16 [vocab, width]
  std::int64_t vocab = 0;
  const std::int32_t* tokens = nullptr;  // [rows]
  float scale = 1;                       // a bf16 number
  void* out = nullptr;                   // bf16 [rows, width]
  std::int64_t rows = 0, width = 0;
};
void gather_rows(const GatherTask& task, StreamHandle stream);

/// sum = bf16(stream + add), then out = bf16(weight * q), q = sum / sqrt(mean(sum^2) + eps), rounded to bf16 first if
/// `round_quotient`. Squares are added in a fixed order.
struct AddNormTask {
  const void* stream = nullptr;   // bf16 [rows, width]
  const void* add = nullptr;      // bf16 [rows, width]; null: the stream is the sum, and not written
  void* sum = nullptr;            // bf16 [rows, width], may be stream
  const float* weight = nullptr;  // [width]
  float eps = 1e-5f;
  bool round_quotient = true;        // false: weights with one added (Gemma)
  void* out = nullptr;               // bf16 [rows, width], may be stream where add is null
  std::int64_t rows = 0, width = 0;  // width up to kMostRow
};
void add_norm(const AddNormTask& task, StreamHandle stream);

/// out = bf16(bf16(activation(gate)) * up), or the clamped gate: to the bit of kernels/cpu/elementwise.h.
struct GateTask {
  const void* gate = nullptr;  // bf16 [rows, width], rows gate_stride apart
  const void* up = nullptr;    // likewise
  std::int64_t gate_stride = 0, up_stride = 0;
  bool by_eights = false;  // eight of gate, eight of up, and so on: up is gate + 8
  GateActivation activation = GateActivation::silu;
  void* out = nullptr;  // bf16 [rows, width]
  std::int64_t rows = 0, width = 0;
};
void gate_mul(const GateTask& task, StreamHandle stream);

/// Formats of rows: e4m3 and int8, symmetric, with a scale in f32 for each row or for all rows.
bool casts_rows(const formats::BlockSpec& format);

/// Puts rows, or what a norm or a gate makes of them, on a format's grid: the bits of add_norm() or gate_mul() and
/// cast.h's cast() after it.
struct CastRowsTask {
  const void* x = nullptr;  // bf16 [rows, width], or what one of these makes, whose own `out` is not written
  const AddNormTask* norm = nullptr;
  const GateTask* gate = nullptr;
  const formats::BlockSpec* format = nullptr;  // casts_rows(), with a scale for each row, or
  float fixed_scale = 0;                       // above 0: this one, whatever the rows are
  void* codes = nullptr;                       // one byte each [rows, width], or
  void* values = nullptr;                      // bf16 [rows, width]: of the codes, without the scale
  float* scale = nullptr;                      // [rows]
  std::int64_t rows = 0, width = 0;            // width up to kMostRow
};
void cast_rows(const CastRowsTask& task, StreamHandle stream);

/// Norms of heads (q_norm, k_norm; null: none), RoPE of queries, in place, and of keys; then the keys and values into
/// the pages of their sequences. Row r stands at positions[r] of sequence sequences[r], and is left alone where
/// positions[r] is negative. k and v are only read. With a Hadamard transform (kernels/head_hadamard.h) heads are
/// rotated by it after RoPE, and rounded to bf16 once more.
struct RotateStoreTask {
  void* q = nullptr;        // bf16 [rows, heads, head_dim], rows q_stride apart
  const void* k = nullptr;  // bf16 [rows, kv_heads, head_dim], rows k_stride apart
  const void* v = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  std::int64_t rows = 0, heads = 0;
  const float* q_norm = nullptr;  // [head_dim]
  const float* k_norm = nullptr;
  float eps = 1e-6f;
  bool round_quotient = true;  // as in AddNormTask
  /// [positions, head_dim / 2], rounded to bf16 as the CPU's tables are; pairs are (i, i + head_dim / 2).
  const float* cos = nullptr;
  const float* sin = nullptr;
  const std::int32_t* positions = nullptr;  // [rows]
  const std::int32_t* sequences = nullptr;  // [rows]: rows of kv.pages
  KvPages kv;
  bool hadamard_keys = false;  // and queries
  bool hadamard_values = false;
};
void rotate_store(const RotateStoreTask& task, StreamHandle stream);

/// Rotates heads by a Hadamard transform, in place, rounded to bf16.
struct HadamardTask {
  void* x = nullptr;                               // bf16 [rows, heads, head_dim]
  std::int64_t rows = 0, heads = 0, head_dim = 0;  // head_dim 64, 128 or 256
};
void hadamard_heads(const HadamardTask& task, StreamHandle stream);

/// The likeliest token of each row: the largest of logits[r][0 .. limit), of equals the lowest; -1 where a logit of
/// the row is NaN or +infinity, or none is finite. logprob: log-softmax over all of the row's logits, of that token.
struct ArgmaxTask {
  const void* logits = nullptr;  // bf16 [rows, vocab]
  std::int64_t rows = 0, vocab = 0;
  std::int64_t limit = 0;         // 0: vocab
  std::int32_t* token = nullptr;  // [rows]
  float* logprob = nullptr;       // [rows]; null: not wanted
  /// argmax_workspace() bytes for as many rows as any call has, and the same vocab; zero before the first call.
  void* workspace = nullptr;
};
std::int64_t argmax_workspace(std::int64_t rows, std::int64_t vocab);
void argmax(const ArgmaxTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
