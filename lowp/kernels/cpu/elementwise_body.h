// The body of every variant of elementwise.h: compiled once for each instruction set, in its own namespace.
#pragma once

#include <cmath>

#include "lowp/kernels/cpu/elementwise.h"
#include "lowp/kernels/cpu/vector_body.h"
#include "lowp/kernels/gate.h"

namespace lowp::kernels::cpu::LOWP_ISA {

// body(load, store, at): for each 16 of `count`, and for the rest with partial loads and stores.
template <typename Body>
inline void each16(std::int64_t count, Body body) {
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    body([i](const float* p) { return load16(p + i); }, [i](float* p, Float16 v) { store16(p + i, v); });
  if (i < count)
    body([i, count](const float* p) { return load_part(p + i, count - i); },
         [i, count](float* p, Float16 v) { store_part(p + i, v, count - i); });
}

template <bool kBf16>
void rms_norm_rounded(const float* x, const float* weight, std::int64_t width, float eps, bool round_quotient,
                      float* out) {
  Float16 squares = {};
  each16(width, [&](auto load, auto) {
    const Float16 v = load(x);
    squares += v * v;
  });
  const float scale = 1.0f / std::sqrt(sum16(squares) / static_cast<float>(width) + eps);
  each16(width, [&](auto load, auto store) {
    const Float16 quotient = load(x) * scale;
    store(out, round16<kBf16>(load(weight) * (round_quotient ? round16<kBf16>(quotient) : quotient)));
  });
}

template <bool kBf16>
void rotate_rounded(float* x, const float* cos, const float* sin, std::int64_t half) {
  each16(half, [&](auto load, auto store) {
    const Float16 a = load(x), b = load(x + half), c = load(cos), s = load(sin);
    store(x, round16<kBf16>(round16<kBf16>(a * c) - round16<kBf16>(b * s)));
    store(x + half, round16<kBf16>(round16<kBf16>(b * c) + round16<kBf16>(a * s)));
  });
}

// gate[i] = gate[i] / (1 + e^-argument(gate[i])) * up[i].
template <bool kBf16, typename Argument>
void gate_mul(float* gate, const float* up, std::int64_t count, Argument argument) {
  each16(count, [&](auto load, auto store) {
    const Float16 g = load(gate);
    store(gate, round16<kBf16>(round16<kBf16>(g / (1.0f + exp16(-argument(g)))) * load(up)));
  });
}

template <bool kBf16>
void clamped_gate_mul(float* gate, const float* up, std::int64_t count) {
  const Float16 most = Float16{} + kGateLimit, least = Float16{} - kGateLimit;
  each16(count, [&](auto load, auto store) {
    Float16 g = load(gate), u = load(up);
    g = g > most ? most : g;  // NaN passes
    u = u > most ? most : u;
    u = u < least ? least : u;
    const Float16 sigmoid = round16<kBf16>(1.0f / (1.0f + exp16(-round16<kBf16>(g * kGateSlope))));
    store(gate, round16<kBf16>(round16<kBf16>(u + 1.0f) * round16<kBf16>(g * sigmoid)));
  });
}

inline Float16 silu_argument(Float16 x) { return x; }
inline Float16 gelu_argument(Float16 x) { return 1.5957691216057308f * (x + 0.044715f * x * x * x); }

template <bool kBf16>
void add_rounded(float* x, const float* y, std::int64_t count) {
  each16(count, [&](auto load, auto store) { store(x, round16<kBf16>(load(x) + load(y))); });
}

inline void rms_norm(const float* x, const float* weight, std::int64_t width, float eps, bool round_quotient, bool bf16,
                     float* out) {
  (bf16 ? rms_norm_rounded<true> : rms_norm_rounded<false>)(x, weight, width, eps, round_quotient, out);
}
inline void rotate(float* x, const float* cos, const float* sin, std::int64_t half, bool bf16) {
  (bf16 ? rotate_rounded<true> : rotate_rounded<false>)(x, cos, sin, half);
}
inline void silu_mul(float* gate, const float* up, std::int64_t count, bool bf16) {
  bf16 ? gate_mul<true>(gate, up, count, silu_argument) : gate_mul<false>(gate, up, count, silu_argument);
}
inline void gelu_mul(float* gate, const float* up, std::int64_t count, bool bf16) {
  bf16 ? gate_mul<true>(gate, up, count, gelu_argument) : gate_mul<false>(gate, up, count, gelu_argument);
}
inline void clamped_mul(float* gate, const float* up, std::int64_t count, bool bf16) {
  bf16 ? clamped_gate_mul<true>(gate, up, count) : clamped_gate_mul<false>(gate, up, count);
}
inline void add(float* x, const float* y, std::int64_t count, bool bf16) {
  (bf16 ? add_rounded<true> : add_rounded<false>)(x, y, count);
}

inline std::int64_t block_length(std::int64_t left) { return left < kLogitBlock ? left : kLogitBlock; }

// body(values, valid) for each 16 of a block: `valid` has the bits of those lanes that are there.
template <typename Body>
inline void each16_of(const float* x, std::int64_t count, Body body) {
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(load16(x + i), Int16{} - 1);
  if (i == count) return;
  const Int16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  body(load_part(x + i, count - i), lane < static_cast<std::int32_t>(count - i));
}

inline void block_maxima(const float* x, std::int64_t count, float* maxima) {
  for (std::int64_t begin = 0; begin < count; begin += kLogitBlock) {
    Float16 largest = Float16{} - INFINITY;
    Int16 nan = {};
    each16_of(x + begin, block_length(count - begin), [&](Float16 v, Int16 valid) {
      v = valid ? v : Float16{} - INFINITY;
      largest = v > largest ? v : largest;
      nan |= v != v;
    });
    float top = -INFINITY;
    std::int32_t any_nan = 0;
    for (int i = 0; i < 16; ++i) {
      top = largest[i] > top ? largest[i] : top;
      any_nan |= nan[i];
    }
    *maxima++ = any_nan ? NAN : top;
  }
}

inline void block_exp_sums(const float* x, std::int64_t count, float top, float scale, float* sums) {
  const Float16 least = exp16(Float16{} - INFINITY);
  for (std::int64_t begin = 0; begin < count; begin += kLogitBlock) {
    Float16 sum = {};
    each16_of(x + begin, block_length(count - begin), [&](Float16 v, Int16 valid) {
      const Float16 e = exp16((v - top) * scale) - least;
      sum += valid ? e : Float16{};
    });
    *sums++ = sum16(sum);
  }
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
