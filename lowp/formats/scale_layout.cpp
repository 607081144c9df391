#include "lowp/formats/scale_layout.h"

#include <algorithm>

#include "lowp/base/error.h"

namespace lowp::formats {
namespace {

constexpr std::string_view kLayouts[] = {"rows", "tiled", "tiled_m_groups", "tiled_k_groups", "tiled_per_expert"};

void check_ends(ScaleLayout layout, std::span<const std::int64_t> ends, std::int64_t size) {
  std::int64_t last = 0;
  for (const std::int64_t end : ends) {
    if (end < last)
      fail(ErrorCode::usage, "{}: group ends must ascend from 0, found {} after {}", name(layout), end, last);
    last = end;
  }
  if (ends.empty() || last != size)
    fail(ErrorCode::usage, "{}: the last group must end at {}, found {}", name(layout), size,
         ends.empty() ? "no groups" : std::to_string(last));
}

}  // namespace

std::string_view name(ScaleLayout layout) { return kLayouts[static_cast<std::size_t>(layout)]; }

std::optional<ScaleLayout> find_scale_layout(std::string_view text) {
  for (std::size_t i = 0; i < std::size(kLayouts); ++i)
    if (kLayouts[i] == text) return static_cast<ScaleLayout>(i);
  return std::nullopt;
}

std::vector<std::string> scale_layout_names() { return {std::begin(kLayouts), std::end(kLayouts)}; }

ScaleMap::ScaleMap(ScaleLayout layout, std::int64_t h, std::int64_t w, std::span<const std::int64_t> ends,
                   std::int64_t experts)
    : layout_(layout), h_(h), w_(w), experts_(experts) {
  const std::int64_t padded_w = round_up(w, kTileCols), padded_h = round_up(h, kTileRows);
  const auto count = static_cast<std::int64_t>(ends.size());
  std::int64_t begin = 0, padded = 0;
  switch (layout) {
    case ScaleLayout::rows:
      shape_ = {experts * h, w};
      break;
    case ScaleLayout::tiled:
      shape_ = {32 * ceil_div(experts * h, kTileRows), 16 * ceil_div(w, kTileCols)};
      break;
    case ScaleLayout::tiled_per_expert:
      shape_ = {experts, padded_h * padded_w};
      break;
    case ScaleLayout::tiled_m_groups:
      check_ends(layout, ends, h);
      for (const std::int64_t end : ends) {
        groups_.push_back({begin, end, padded * padded_w});
        padded += round_up(end - begin, kTileRows);
        begin = end;
      }
      shape_ = {h + kTileRows * count, padded_w};
      break;
    case ScaleLayout::tiled_k_groups:
      check_ends(layout, ends, w);
      for (const std::int64_t end : ends) {
        groups_.push_back({begin, end, padded * padded_h});
        padded += round_up(end - begin, kTileCols);
        begin = end;
      }
      shape_ = {padded_h, w + kTileCols * count};
      break;
  }
}

void ScaleMap::apply(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const {
  std::fill(out.begin(), out.end(), std::uint8_t{0});
  for (std::int64_t r = 0; r < experts_ * h_; ++r)
    for (std::int64_t c = 0; c < w_; ++c) out[offset(r, c)] = in[r * w_ + c];
}

void ScaleMap::invert(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) const {
  for (std::int64_t r = 0; r < experts_ * h_; ++r)
    for (std::int64_t c = 0; c < w_; ++c) out[r * w_ + c] = in[offset(r, c)];
}

}  // namespace lowp::formats
