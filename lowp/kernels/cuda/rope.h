// Heads on their way into fp8 attention: rotary embedding, optionally a Hadamard transform, one scale for each head.
#pragma once

#include "lowp/formats/element.h"
#include "lowp/kernels/cuda/kv_pages.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// kernels::ref::HeadsCast on the device; pointers are to device memory.
struct HeadsTask {
  const void* x = nullptr;  // f16, bf16 or f32 [batch, seq, heads, dim], 16-byte aligned
  formats::Elem input = formats::Elem::bf16;
  std::int64_t batch = 1, seq = 1, heads = 1, dim = 64;  // dim 64, 128 or 256
  std::int64_t heads_per_scale = 1;                      // divides heads
  const float* cos = nullptr;                            // [seq, dim / 2], 16-byte aligned; null: no rotation
  const float* sin = nullptr;
  bool interleaved = false;  // pairs (2i, 2i + 1) instead of (i, i + dim / 2)
  bool hadamard = false;
  // Where they go, one of these; but for codes, x is bf16.
  void* codes = nullptr;          // e4m3 [batch, heads, seq, dim]
  void* rotated = nullptr;        // bf16 [batch, seq, heads, dim]: what would be rounded to e4m3
  KvPages kv;                     // pages of e4m3, a row of them for each of the batch; a scale a head
  bool are_values = false;        // in pages
  float* descale = nullptr;       // [batch, heads / heads_per_scale]
  std::uint32_t* amax = nullptr;  // scratch, of the descales' shape
};

/// Reads x twice, and writes nothing but the result: the rotation is computed again rather than kept.
void rope_cast(const HeadsTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
