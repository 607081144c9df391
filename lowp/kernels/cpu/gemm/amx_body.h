// Products by AMX tiles: 32 rows x 32 outputs in four accumulators of 16 x 16. Weights stand in memory as the B tiles
// want them: a row of a tile is one step of k for 16 outputs. Where blocks have scales, their sums leave the tiles
// after each block, 16 rows x 16 outputs at a time, so that the scaled sums of all blocks stay in registers.
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

// Tiles of x: 64 bytes of 16 rows from `row` on, `at` bytes behind the span's first.
class RowTiles {
 public:
  explicit RowTiles(const Span& s) : s_(s) {}
  // Bytes between the rows of a tile, and between neighbours along k.
  std::int64_t stride() const { return s_.x_tiles ? 64 : s_.x_stride; }
  std::int64_t next() const { return s_.x_tiles ? 64 * kTileRows : 64; }
  const std::uint8_t* at(std::int64_t row, std::int64_t at) const {
    if (!s_.x_tiles) return s_.x + row * s_.x_stride + at;
    const std::int64_t byte = s_.x_at + at;
    return s_.x_tiles + row * s_.x_stride + byte / 64 * (64 * kTileRows) + byte % 64;
  }

 private:
  const Span& s_;
};

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

// values [R, 32] gain a block's sums [R, 32], as plain_tile() adds them.
template <bool kInt8>
inline void add_sums(const Span& s, std::int64_t row, std::int64_t rows, std::int64_t b, const std::int32_t* sums,
                     float* values) {
  const bool first = s.first && b == 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = b * s.x_rows + row + r;
    const __m512i start = _mm512_set1_epi32(kInt8 ? s.starts[at] : 0);
    const Floats float_start = broadcast(!kInt8 && s.float_starts ? s.float_starts[at] : 0.0f);
#pragma GCC unroll 2
    for (int column = 0; column < kPanel; column += kLanes) {
      const __m512i raw = _mm512_load_si512(sums + r * kPanel + column);
      const Floats sum =
          kInt8 ? _mm512_cvtepi32_ps(_mm512_add_epi32(raw, start)) : add(_mm512_castsi512_ps(raw), float_start);
      float* const to = values + (row + r) * kPanel + column;
      store(to, first ? sum : add(load(to), sum));
    }
  }
}

// values [rows, 32] gain the span's sums, which have no scales.
template <bool kInt8>
void multiply_tiles(const Span& s, std::int64_t rows, float* values) {
  constexpr std::int64_t kTileK = kInt8 ? 64 : 32;
  alignas(64) std::int32_t sums[32 * kPanel];
  const int steps = !kInt8 && s.k < kTileK ? static_cast<int>(s.k / 2) : 16;
  const RowTiles tiles(s);
  const std::int64_t stride = tiles.stride(), next = tiles.next();
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
      const std::uint8_t* x = tiles.at(row, b * s.k * (kInt8 ? 1 : 2));
      const std::uint8_t* const x_lower = x + 16 * s.x_stride;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      // A last half step of int8 reads beyond the block's weights: against zeros of x.
      std::int64_t along = 0;
      for (std::int64_t k = 0; k < s.k; k += kTileK, w += 16 * kStepBytes, along += next) {
        _tile_loadd(6, w, kStepBytes);
        _tile_loadd(7, w + 64, kStepBytes);
        _tile_loadd(4, x + along, stride);
        upper_dots<kInt8>();
        if (lower > 0) {
          _tile_loadd(5, x_lower + along, stride);
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

// R rows, `count` of them real. int8 weights stand with their sign: no start.
template <bool kInt8, bool kRowScales, int R>
inline void scaled_tiles(const Span& s, std::int64_t row, std::int64_t count, std::int64_t tile_k, float* values) {
  const RowTiles tiles(s);
  const std::int64_t stride = tiles.stride();
  // What a tile has stored is not forwarded to loads: it is added two blocks later.
  constexpr std::int64_t kLag = 2;
  alignas(64) std::int32_t sums[4][R * kLanes] = {};  // rows that are not real stay 0
  const std::int64_t x_bytes = tile_k * (kInt8 ? 1 : 2);
  for (int column = 0; column < kPanel; column += kLanes) {
    float* const to = values + row * kPanel + column;
    Floats total[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) total[r] = s.first || r >= count ? zero() : load(to + r * kPanel);
    for (std::int64_t next = 0; next < s.blocks + kLag; ++next) {
      if (next < s.blocks) {
        const std::uint8_t* w = s.weight + next * s.weight_stride + column * 4;
        std::int64_t at = next * s.k * (kInt8 ? 1 : 2);
        _tile_zero(0);
        for (std::int64_t k = 0; k < s.k; k += tile_k, w += x_bytes / 4 * kStepBytes, at += x_bytes) {
          _tile_loadd(4, tiles.at(row, at), stride);
          _tile_loadd(6, w, kStepBytes);
          if constexpr (kInt8)
            _tile_dpbssd(0, 4, 6);
          else
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, sums[next % 4], kLanes * 4);
      }
      if (next < kLag) continue;
      const std::int64_t b = next - kLag, of = b * s.x_rows + row;
      const std::int32_t* const block = sums[b % 4];
      const Floats scale = load(s.scale + b * s.scale_stride + column);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512i raw = _mm512_load_si512(block + r * kLanes);
        Floats sum = kInt8 ? _mm512_cvtepi32_ps(raw) : _mm512_castsi512_ps(raw);
        if (!kInt8 && s.float_starts) sum = add(sum, broadcast(s.float_starts[of + r]));
        total[r] = multiply_add(sum, kRowScales ? multiply(scale, broadcast(s.x_scale[of + r])) : scale, total[r]);
      }
      if (!s.offset) continue;
      const Floats offset = load(s.offset + b * s.scale_stride + column);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) total[r] = multiply_add(offset, broadcast(s.scaled_sums[of + r]), total[r]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      if (r < count) store(to + r * kPanel, total[r]);
  }
}

// values [rows, 32] gain the span's scaled sums.
template <bool kInt8>
void multiply_scaled_tiles(const Span& s, std::int64_t rows, float* values) {
  // The longest step that divides a block.
  const std::int64_t whole = kInt8 ? 64 : 32, tile_k = s.k % whole == 0 ? whole : s.k % 32 == 0 ? 32 : 16;
  std::int64_t configured = 0;
  for (std::int64_t row = 0; row < rows; row += 16) {
    const std::int64_t count = rows - row < 16 ? rows - row : 16;
    if (count != configured) {
      const TileConfig config = tile_config(static_cast<int>(count), 0, static_cast<int>(tile_k / (kInt8 ? 4 : 2)));
      _tile_loadconfig(&config);
      configured = count;
    }
    const auto run = [&](auto few) {
      constexpr int R = decltype(few)::value ? static_cast<int>(kFewRows) : 16;
      if (s.x_scale)
        scaled_tiles<kInt8, true, R>(s, row, count, tile_k, values);
      else
        scaled_tiles<kInt8, false, R>(s, row, count, tile_k, values);
    };
    if constexpr (!kInt8) {
      if (count <= kFewRows) {
        run(std::true_type{});
        continue;
      }
    }
    run(std::false_type{});
  }
  _tile_release();
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
