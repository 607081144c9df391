// Attention in AMX tiles of 16 rows by 16 columns, 32 bf16 deep. Each row of a tile is computed by itself, so fewer
// query rows cost less and give the same.
#define LOWP_ISA amx
#include <immintrin.h>

#include "lowp/kernels/cpu/softmax_bf16_body.h"

namespace lowp::kernels::cpu {
namespace amx {

// Tiles 0 to 4 have `rows` rows (sums and the left operand), 5 and 6 sixteen (pairs of the right operand); all 64 bytes
// wide.
class Tiles {
 public:
  explicit Tiles(std::int64_t rows) {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } config;
    for (int t = 0; t < 7; ++t) {
      config.row_bytes[t] = 64;
      config.rows[t] = t < 5 ? static_cast<std::uint8_t>(rows) : 16;
    }
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

void scores(const void* queries, std::int64_t rows, const void* const* keys, std::int64_t pages, std::int64_t dim,
            float* out) {
  const Tiles tiles(rows);
  constexpr std::size_t kKeyStride = kPageTokens * 4, kOutStride = kSegmentTokens * sizeof(float);
  for (std::int64_t p = 0; p < pages; ++p) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::int64_t i = 0; i < dim; i += 32) {
      const auto* key = static_cast<const std::uint32_t*>(keys[p]) + i / 2 * kPageTokens;
      _tile_loadd(4, static_cast<const std::uint16_t*>(queries) + i, static_cast<std::size_t>(dim) * 2);
      _tile_loadd(5, key, kKeyStride);
      _tile_dpbf16ps(0, 4, 5);
      _tile_loadd(6, key + 16, kKeyStride);
      _tile_dpbf16ps(1, 4, 6);
      _tile_loadd(5, key + 32, kKeyStride);
      _tile_dpbf16ps(2, 4, 5);
      _tile_loadd(6, key + 48, kKeyStride);
      _tile_dpbf16ps(3, 4, 6);
    }
    float* to = out + p * kPageTokens;
    _tile_stored(0, to, kOutStride);
    _tile_stored(1, to + 16, kOutStride);
    _tile_stored(2, to + 32, kOutStride);
    _tile_stored(3, to + 48, kOutStride);
  }
}

void mix(const void* weights, std::int64_t rows, const void* const* values, std::int64_t pages, std::int64_t dim,
         float* out) {
  const Tiles tiles(rows);
  const std::size_t value_stride = static_cast<std::size_t>(dim) * 4;
  for (std::int64_t i = 0; i < dim; i += 32) {
    _tile_zero(0);
    _tile_zero(1);
    for (std::int64_t t = 0; t < pages * kPageTokens; t += 32) {
      const auto* value = static_cast<const std::uint32_t*>(values[t / kPageTokens]) + t % kPageTokens / 2 * dim + i;
      _tile_loadd(4, static_cast<const std::uint16_t*>(weights) + t, kSegmentTokens * 2);
      _tile_loadd(5, value, value_stride);
      _tile_dpbf16ps(0, 4, 5);
      _tile_loadd(6, value + 16, value_stride);
      _tile_dpbf16ps(1, 4, 6);
    }
    _tile_stored(0, out + i, static_cast<std::size_t>(dim) * sizeof(float));
    _tile_stored(1, out + i + 16, static_cast<std::size_t>(dim) * sizeof(float));
  }
}

}  // namespace amx

const AttentionKernel kAttentionAmx = {.name = "amx",
                                       .bf16 = true,
                                       .scores = amx::scores,
                                       .softmax = amx::softmax<std::uint16_t>,
                                       .softmax_e4m3 = amx::softmax_e4m3<std::uint16_t>,
                                       .mix = amx::mix,
                                       .to_e4m3 = amx::to_e4m3<std::uint16_t>,
                                       .from_int8 = amx::from_int8,
                                       .from_e4m3 = amx::from_e4m3<std::uint16_t>,
                                       .from_bf16 = nullptr};

}  // namespace lowp::kernels::cpu
