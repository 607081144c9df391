// How one-byte block scales are laid out for block-scaled matrix instructions: tiles of 128 x 4 scales, and the
// variants for grouped matrices (torchao-spec section 4). Maps are constexpr and invertible; the same functions serve
// host and device.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/bits.h"

namespace lowp::formats {

enum class ScaleLayout : std::uint8_t {
  rows,              // [h, w], row-major: what files hold
  tiled,             // one matrix in tiles
  tiled_m_groups,    // rows split into groups, each tiled by itself: activations of a grouped matrix product
  tiled_k_groups,    // columns split into groups, each tiled by itself: the same with the contraction split
  tiled_per_expert,  // [experts, h, w], each expert tiled by itself
};
std::string_view name(ScaleLayout layout);
std::optional<ScaleLayout> find_scale_layout(std::string_view name);
std::vector<std::string> scale_layout_names();

inline constexpr std::int64_t kTileRows = 128, kTileCols = 4, kTileBytes = 512;

/// Bytes of a tiled [h, w] matrix; the padding is zero.
LOWP_HD constexpr std::int64_t tiled_bytes(std::int64_t h, std::int64_t w) {
  return ceil_div(h, kTileRows) * ceil_div(w, kTileCols) * kTileBytes;
}

/// Place of scale (r, c) in a tiled matrix of w columns: tiles of 512 bytes row by row; inside, 32 rows of 16 bytes,
/// each holding the 4 columns of rows r, r + 32, r + 64, r + 96.
LOWP_HD constexpr std::int64_t tiled_offset(std::int64_t r, std::int64_t c, std::int64_t w) {
  const std::int64_t tile = r / kTileRows * ceil_div(w, kTileCols) + c / kTileCols;
  return tile * kTileBytes + r % 32 * 16 + r % kTileRows / 32 * 4 + c % kTileCols;
}

/// Where each scale of an [h, w] (per expert: [experts * h, w]) matrix goes, for any layout. Empty groups are allowed.
class ScaleMap {
 public:
  /// `ends`: exclusive end offsets of the groups, ascending, the last equal to h (m groups) or w (k groups); unused
  /// otherwise. Throws Error(usage) if they are not.
  ScaleMap(ScaleLayout layout, std::int64_t h, std::int64_t w, std::span<const std::int64_t> ends = {},
           std::int64_t experts = 1);

  /// Shape of the laid-out tensor, as torchao's functions return it: rows [h, w]; tiled [32 * tile rows, 16 * tile
  /// columns]; m groups [h + 128 G, w up to 4]; k groups [h up to 128, w + 4 G]; per expert [experts, h up to 128 * w
  /// up to 4].
  const std::vector<std::int64_t>& shape() const { return shape_; }

  /// Byte of scale (r, c), 0 <= r < experts * h.
  std::int64_t offset(std::int64_t r, std::int64_t c) const;

  /// out has as many bytes as shape(); what no scale maps to is zero.
  void apply(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const;
  /// Inverse of apply().
  void invert(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const;

 private:
  struct Group {
    std::int64_t begin, end, base;  // rows or columns of the source, first byte of the destination
  };
  ScaleLayout layout_;
  std::int64_t h_, w_, experts_;
  std::vector<Group> groups_;
  std::vector<std::int64_t> shape_;
};

}  // namespace lowp::formats
