// Attention with f32 operands: compiled once for each instruction set, in its own namespace. LOWP_LANES: floats in a
// register.
#pragma once

#include "lowp/kernels/cpu/attention.h"
#include "lowp/kernels/cpu/softmax_body.h"

namespace lowp::kernels::cpu::LOWP_ISA {

typedef float Lanes __attribute__((vector_size(LOWP_LANES * 4)));

inline Lanes load_lanes(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// R x C registers of sums over `count` steps: a[r] is broadcast, b read in lanes.
template <int R, int C>
struct Sums {
  Lanes at[R][C] = {};

  void add(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      Lanes column[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) column[c] = load_lanes(b + i * b_stride + c * LOWP_LANES);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Lanes weight = Lanes{} + a[r * a_stride + i];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) at[r][c] += weight * column[c];
      }
    }
  }
  void store(float* out, std::int64_t stride) const {
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) std::memcpy(out + r * stride + c * LOWP_LANES, &at[r][c], sizeof(Lanes));
  }
};

template <int R>
void scores_of(const float* queries, const void* const* keys, std::int64_t pages, std::int64_t dim, float* scores) {
  constexpr int kColumns = LOWP_LANES == 16 ? 4 : 2;
  constexpr std::int64_t kWide = kColumns * LOWP_LANES;
  for (std::int64_t p = 0; p < pages; ++p)
    for (std::int64_t t = 0; t < kPageTokens; t += kWide) {
      Sums<R, kColumns> sums;
      sums.add(queries, dim, static_cast<const float*>(keys[p]) + t, kPageTokens, dim);
      sums.store(scores + p * kPageTokens + t, kSegmentTokens);
    }
}

template <int R>
void mix_of(const float* weights, const void* const* values, std::int64_t pages, std::int64_t dim, float* out) {
  constexpr std::int64_t kWide = 2 * LOWP_LANES;
  for (std::int64_t i = 0; i < dim; i += kWide) {
    Sums<R, 2> sums;
    for (std::int64_t p = 0; p < pages; ++p)
      sums.add(weights + p * kPageTokens, kSegmentTokens, static_cast<const float*>(values[p]) + i, dim, kPageTokens);
    sums.store(out + i, dim);
  }
}

inline void scores(const void* queries, std::int64_t rows, const void* const* keys, std::int64_t pages,
                   std::int64_t dim, float* out) {
  in_row_bands(rows, [&]<int R>(std::int64_t r) {
    scores_of<R>(static_cast<const float*>(queries) + r * dim, keys, pages, dim, out + r * kSegmentTokens);
  });
}

inline void mix(const void* weights, std::int64_t rows, const void* const* values, std::int64_t pages, std::int64_t dim,
                float* out) {
  in_row_bands(rows, [&]<int R>(std::int64_t r) {
    mix_of<R>(static_cast<const float*>(weights) + r * kSegmentTokens, values, pages, dim, out + r * dim);
  });
}

inline void from_int8(const std::int8_t* in, std::int64_t count, void* out) {
  for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(out)[i] = in[i];
}

inline void from_bf16(const std::uint16_t* in, std::int64_t count, void* out) {
  for (std::int64_t i = 0; i < count; ++i)
    static_cast<std::uint32_t*>(out)[i] = static_cast<std::uint32_t>(in[i]) << 16;
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
