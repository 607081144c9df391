// Attention with vdpbf16ps: 16 tokens (or 16 dimensions) in a register, pairs of bf16 in its lanes.
#define LOWP_ISA avx512_bf16
#include <immintrin.h>

#include "lowp/kernels/cpu/softmax_bf16_body.h"

namespace lowp::kernels::cpu {
namespace avx512_bf16 {

// The pairs a[r][0 .. pairs) times the pairs of C registers a row of b.
template <int R, int C>
struct Sums {
  __m512 at[R][C];

  Sums() {
    for (auto& row : at)
      for (__m512& v : row) v = _mm512_setzero_ps();
  }
  // Strides in pairs.
  void add(const std::uint32_t* a, std::int64_t a_stride, const std::uint32_t* b, std::int64_t b_stride,
           std::int64_t pairs) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      __m512bh column[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) column[c] = (__m512bh)_mm512_loadu_si512(b + i * b_stride + c * 16);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m512bh weight = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * a_stride + i]));
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) at[r][c] = _mm512_dpbf16_ps(at[r][c], weight, column[c]);
      }
    }
  }
  void store(float* out, std::int64_t stride) const {
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) _mm512_storeu_ps(out + r * stride + c * 16, at[r][c]);
  }
};

void scores(const void* queries, std::int64_t rows, const void* const* keys, std::int64_t pages, std::int64_t dim,
            float* out) {
  in_row_bands(rows, [&]<int R>(std::int64_t r) {
    for (std::int64_t p = 0; p < pages; ++p) {
      Sums<R, 4> sums;
      sums.add(static_cast<const std::uint32_t*>(queries) + r * dim / 2, dim / 2,
               static_cast<const std::uint32_t*>(keys[p]), kPageTokens, dim / 2);
      sums.store(out + r * kSegmentTokens + p * kPageTokens, kSegmentTokens);
    }
  });
}

void mix(const void* weights, std::int64_t rows, const void* const* values, std::int64_t pages, std::int64_t dim,
         float* out) {
  in_row_bands(rows, [&]<int R>(std::int64_t r) {
    for (std::int64_t i = 0; i < dim; i += 32) {
      Sums<R, 2> sums;
      for (std::int64_t p = 0; p < pages; ++p)
        sums.add(static_cast<const std::uint32_t*>(weights) + (r * kSegmentTokens + p * kPageTokens) / 2,
                 kSegmentTokens / 2, static_cast<const std::uint32_t*>(values[p]) + i, dim, kPageTokens / 2);
      sums.store(out + r * dim + i, dim);
    }
  });
}

}  // namespace avx512_bf16

const AttentionKernel kAttentionAvx512Bf16 = {.name = "avx512-bf16",
                                              .bf16 = true,
                                              .scores = avx512_bf16::scores,
                                              .softmax = avx512_bf16::softmax<std::uint16_t>,
                                              .softmax_e4m3 = avx512_bf16::softmax_e4m3<std::uint16_t>,
                                              .mix = avx512_bf16::mix,
                                              .to_e4m3 = avx512_bf16::to_e4m3<std::uint16_t>,
                                              .from_int8 = avx512_bf16::from_int8,
                                              .from_e4m3 = avx512_bf16::from_e4m3<std::uint16_t>,
                                              .from_bf16 = nullptr};

}  // namespace lowp::kernels::cpu
