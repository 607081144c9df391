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
template <std::integral T = std::int64_t>
LOWP_HD constexpr T tiled_offset(T r, T c, T w) {
  const T rows = kTileRows, columns = kTileCols, tile = r / rows * ceil_div(w, columns) + c / columns;
  return tile * static_cast<T>(kTileBytes) + r % 32 * 16 + r % rows / 32 * 4 + c % columns;
}

/// Rows (m groups) or columns (k groups) [begin, end) of the source, and the first byte of the destination.
struct ScaleGroup {
  std::int64_t begin, end, base;
};

/// The arithmetic of a scale layout over [experts, h, w]; `groups` is in the memory of whoever asks, host or device.
struct ScaleGrid {
  ScaleLayout layout = ScaleLayout::rows;
  std::int64_t h = 0, w = 0;
  const ScaleGroup* groups = nullptr;
  std::int64_t count = 0;

  /// Byte of scale (r, c) of an expert.
  LOWP_HD constexpr std::int64_t offset(std::int64_t expert, std::int64_t r, std::int64_t c) const {
    switch (layout) {
      case ScaleLayout::rows:
        return (expert * h + r) * w + c;
      case ScaleLayout::tiled:
        return tiled_offset(expert * h + r, c, w);
      case ScaleLayout::tiled_per_expert:
        return expert * tiled_bytes(h, w) + tiled_offset(r, c, w);
      case ScaleLayout::tiled_m_groups: {
        const ScaleGroup group = group_of(r);
        return group.base + tiled_offset(r - group.begin, c, w);
      }
      case ScaleLayout::tiled_k_groups: {
        const ScaleGroup group = group_of(c);
        return group.base + tiled_offset(r, c - group.begin, group.end - group.begin);
      }
    }
    return 0;
  }

 private:
  // The first group that ends beyond i.
  LOWP_HD constexpr ScaleGroup group_of(std::int64_t i) const {
    std::int64_t low = 0, high = count - 1;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (groups[middle].end > i)
        high = middle;
      else
        low = middle + 1;
    }
    return groups[low];
  }
};

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
  std::int64_t offset(std::int64_t r, std::int64_t c) const { return grid().offset(r / h_, r % h_, c); }

  /// The map's arithmetic; refers to groups().
  ScaleGrid grid() const { return {layout_, h_, w_, groups_.data(), static_cast<std::int64_t>(groups_.size())}; }
  const std::vector<ScaleGroup>& groups() const { return groups_; }

  /// out has as many bytes as shape(); what no scale maps to is zero.
  void apply(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const;
  /// Inverse of apply().
  void invert(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const;

 private:
  ScaleLayout layout_;
  std::int64_t h_, w_, experts_;
  std::vector<ScaleGroup> groups_;
  std::vector<std::int64_t> shape_;
};

}  // namespace lowp::formats
