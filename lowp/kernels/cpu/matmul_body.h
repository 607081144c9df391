// The body of every variant of matmul.h: compiled once for each instruction set, in its own namespace.
#pragma once

#include <cstdint>
#include <cstring>

namespace lowp::kernels::cpu::LOWP_ISA {

typedef float Lanes __attribute__((vector_size(32)));
constexpr std::int64_t kLanes = 8;

inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Lanes load_tail(const float* p, std::int64_t count) {
  Lanes v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}

inline float sum(Lanes v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

// R x C sums at a time: with 4 x 3 the accumulators, a column triple and a row fill the 16 registers of AVX2.
template <int R, int C>
void tile(const float* x, const float* w, std::int64_t k, float* y, std::int64_t ldy) {
  Lanes acc[R][C] = {};
  const std::int64_t whole = k / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    Lanes b[C];
#pragma GCC unroll 3
    for (int c = 0; c < C; ++c) b[c] = load(w + c * k + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Lanes a = load(x + r * k + i);
#pragma GCC unroll 3
      for (int c = 0; c < C; ++c) acc[r][c] += a * b[c];
    }
  }
  if (whole < k)
    for (int c = 0; c < C; ++c) {
      const Lanes b = load_tail(w + c * k + whole, k - whole);
      for (int r = 0; r < R; ++r) acc[r][c] += load_tail(x + r * k + whole, k - whole) * b;
    }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) y[r * ldy + c] = sum(acc[r][c]);
}

template <int R>
void row_band(const float* x, const float* w, std::int64_t cols, std::int64_t k, float* y, std::int64_t ldy) {
  std::int64_t c = 0;
  for (; c + 3 <= cols; c += 3) tile<R, 3>(x, w + c * k, k, y + c, ldy);
  for (; c < cols; ++c) tile<R, 1>(x, w + c * k, k, y + c, ldy);
}

inline void matmul(const float* x, std::int64_t rows, const float* w, std::int64_t cols, std::int64_t k, float* y,
                   std::int64_t ldy) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) row_band<4>(x + r * k, w, cols, k, y + r * ldy, ldy);
  for (; r < rows; ++r) row_band<1>(x + r * k, w, cols, k, y + r * ldy, ldy);
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
