// Products by AMX tiles: 32 rows x 32 outputs in four accumulators of 16 x 16. Weights stand in memory as the B tiles
// want them: a row of a tile is one step of k for 16 outputs. A block's sums leave the tiles to be scaled.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "lowp/kernels/cpu/gemm/gemm_body.h"

namespace lowp::kernels::cpu::LOWP_ISA {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// Tiles 0..3: sums [2, 2] of `upper` and `lower` rows; 4, 5: rows of x; 6, 7: weights, `steps` steps of k.
inline TileConfig tile_config(int upper, int lower, int steps) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    const bool is_x = t == 4 || t == 5, is_weight = t > 5;
    const int rows = is_weight ? steps : t < 2 || t == 4 ? upper : lower;
    config.bytes[t] = static_cast<std::uint16_t>(is_x ? 4 * steps : 64);
    config.rows[t] = static_cast<std::uint8_t>(rows > 0 ? rows : 1);
  }
  return config;
}

// The intrinsics take literal tile numbers only.
template <bool kInt8>
inline void upper_dots() {
  if constexpr (kInt8) {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
  } else {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
}

template <bool kInt8>
inline void lower_dots() {
  if constexpr (kInt8) {
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  } else {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// values [R, 32] gain a block's sums [R, 32], as scaled_tile() and plain_tile() add them.
template <bool kInt8>
inline void add_sums(const Span& s, std::int64_t row, std::int64_t rows, std::int64_t b, const std::int32_t* sums,
                     float* values) {
  const bool scaled = s.scale || s.x_scale;
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t column = v * kLanes, at_scale = b * s.scale_stride + column;
    const Floats scale = s.scale ? load(s.scale + at_scale) : broadcast(1.0f);
    const Floats offset = s.offset ? load(s.offset + at_scale) : zero();
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = (row + r) * s.x_blocks + b;
      const __m512i raw = _mm512_load_si512(sums + r * kPanel + column);
      Floats sum;
      if constexpr (kInt8)
        sum = _mm512_cvtepi32_ps(
            _mm512_sub_epi32(raw, _mm512_set1_epi32(static_cast<std::int32_t>(s.bias) * s.sums[at])));
      else
        sum = add(_mm512_castsi512_ps(raw), broadcast(s.float_sums ? -s.bias * s.float_sums[at] : 0.0f));
      float* const to = values + (row + r) * kPanel + column;
      const Floats before = s.first && b == 0 ? zero() : load(to);
      if (!scaled) {
        store(to, add(before, sum));
        continue;
      }
      const float x_scale = s.x_scale ? s.x_scale[at] : 1.0f;
      Floats total = multiply_add(sum, multiply(scale, broadcast(x_scale)), before);
      if (s.offset) total = multiply_add(offset, broadcast(s.float_sums[at] * x_scale), total);
      store(to, total);
    }
  }
}

// values [rows, 32] gain the span's sums. int8 spans have no scales.
template <bool kInt8>
void multiply_tiles(const Span& s, std::int64_t rows, float* values) {
  constexpr std::int64_t kTileK = kInt8 ? 64 : 32;
  alignas(64) std::int32_t sums[32 * kPanel];
  const int steps = !kInt8 && s.k < kTileK ? static_cast<int>(s.k / 2) : 16;
  int configured = 0;                          // rows
  for (std::int64_t b = 0; b < s.blocks; ++b)  // a block of weights stays in the first-level cache for all rows
    for (std::int64_t row = 0; row < rows; row += 32) {
      const int count = static_cast<int>(rows - row < 32 ? rows - row : 32), lower = count - 16;
      if (count != configured) {
        const TileConfig config = tile_config(count < 16 ? count : 16, lower, steps);
        _tile_loadconfig(&config);
        configured = count;
      }
      const std::uint8_t* w = s.weight + b * s.weight_stride;
      const std::uint8_t* x = s.x + row * s.x_stride + b * s.k * (kInt8 ? 1 : 2);
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      // A last half step of int8 reads beyond the block's weights: against zeros of x.
      for (std::int64_t k = 0; k < s.k; k += kTileK, w += 16 * kStepBytes, x += 64) {
        _tile_loadd(6, w, kStepBytes);
        _tile_loadd(7, w + 64, kStepBytes);
        _tile_loadd(4, x, s.x_stride);
        upper_dots<kInt8>();
        if (lower > 0) {
          _tile_loadd(5, x + 16 * s.x_stride, s.x_stride);
          lower_dots<kInt8>();
        }
      }
      _tile_stored(0, sums, kPanel * 4);
      _tile_stored(1, sums + 16, kPanel * 4);
      if (lower > 0) {
        _tile_stored(2, sums + 16 * kPanel, kPanel * 4);
        _tile_stored(3, sums + 16 * kPanel + 16, kPanel * 4);
      }
      add_sums<kInt8>(s, row, count, b, sums, values);
    }
  _tile_release();
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
