#include "lowp/formats/scale_layout.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "lowp/base/error.h"

namespace lowp::formats {
namespace {

using Ends = std::vector<std::int64_t>;

TEST(ScaleLayout, PublishedOffsets) {
  // torchao-spec A.5: 8 columns.
  EXPECT_EQ(tiled_offset(0, 0, 8), 0);
  EXPECT_EQ(tiled_offset(1, 0, 8), 16);
  EXPECT_EQ(tiled_offset(32, 0, 8), 4);
  EXPECT_EQ(tiled_offset(33, 1, 8), 21);
  EXPECT_EQ(tiled_offset(127, 3, 8), 511);
  EXPECT_EQ(tiled_offset(0, 4, 8), 512);
  EXPECT_EQ(tiled_offset(128, 0, 8), 1024);
  EXPECT_EQ(tiled_offset(128, 5, 8), 1537);
}

// Every scale has a place of its own inside the tensor, and invert() undoes apply().
void expect_bijection(const ScaleMap& map, std::int64_t rows, std::int64_t cols) {
  std::int64_t bytes = 1;
  for (const std::int64_t d : map.shape()) bytes *= d;
  std::set<std::int64_t> places;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) {
      const std::int64_t at = map.offset(r, c);
      ASSERT_GE(at, 0);
      ASSERT_LT(at, bytes);
      ASSERT_TRUE(places.insert(at).second) << r << ", " << c;
    }
  std::vector<std::uint8_t> in(static_cast<std::size_t>(rows * cols)), out(static_cast<std::size_t>(bytes), 7),
      back(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<std::uint8_t>(i * 31 + 1);
  map.apply(in, out);
  map.invert(out, back);
  EXPECT_EQ(in, back);
}

TEST(ScaleLayout, MapsAreBijections) {
  for (const std::int64_t h : {1, 31, 32, 33, 128, 129, 300})
    for (const std::int64_t w : {1, 3, 4, 5, 12}) {
      expect_bijection(ScaleMap(ScaleLayout::rows, h, w), h, w);
      expect_bijection(ScaleMap(ScaleLayout::tiled, h, w), h, w);
      expect_bijection(ScaleMap(ScaleLayout::tiled_per_expert, h, w, {}, 3), 3 * h, w);
      expect_bijection(ScaleMap(ScaleLayout::tiled_m_groups, h, w, Ends{0, h / 2, h / 2, h}), h, w);
      expect_bijection(ScaleMap(ScaleLayout::tiled_k_groups, h, w, Ends{w / 2, w, w}), h, w);
    }
}

TEST(ScaleLayout, RefusesBadGroupEnds) {
  EXPECT_THROW(ScaleMap(ScaleLayout::tiled_m_groups, 8, 4, Ends{}), Error);
  EXPECT_THROW(ScaleMap(ScaleLayout::tiled_m_groups, 8, 4, Ends{5, 3, 8}), Error);
  EXPECT_THROW(ScaleMap(ScaleLayout::tiled_m_groups, 8, 4, Ends{7}), Error);
  EXPECT_THROW(ScaleMap(ScaleLayout::tiled_k_groups, 8, 4, Ends{-1, 4}), Error);
}

TEST(ScaleLayout, NamesRoundTrip) {
  for (const std::string& text : scale_layout_names()) EXPECT_EQ(name(*find_scale_layout(text)), text);
}

}  // namespace
}  // namespace lowp::formats
