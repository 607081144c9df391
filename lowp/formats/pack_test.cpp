#include "lowp/formats/pack.h"

#include <gtest/gtest.h>

#include <vector>

namespace lowp::formats {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(Pack, NibblesAreLowFirst) {
  const Bytes codes = {0, 1, 2, 8};  // 0, 0.5, 1, -0 of e2m1
  Bytes bytes(2);
  pack_bits(codes, 4, bytes);
  EXPECT_EQ(bytes, (Bytes{0x10, 0x82}));
}

TEST(Pack, ThreeBitsCrossBytes) {
  // (i mod 8) - 4 plus offset 4: the words 88fac688 c688fac6 fac688fa, read as little-endian bytes.
  Bytes codes(32), bytes(12);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i % 8);
  pack_bits(codes, 3, bytes);
  EXPECT_EQ(bytes, (Bytes{0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa}));
}

TEST(Pack, RoundTripForEveryWidthAndLength) {
  for (int bits = 1; bits <= 8; ++bits)
    for (std::int64_t count = 0; count < 40; ++count) {
      Bytes codes(static_cast<std::size_t>(count)), back(codes.size());
      for (std::size_t i = 0; i < codes.size(); ++i)
        codes[i] = static_cast<std::uint8_t>((i * 37 + 11) & ((1u << bits) - 1));
      Bytes bytes(static_cast<std::size_t>(packed_bytes(count, bits)));
      pack_bits(codes, bits, bytes);
      unpack_bits(bytes, bits, back);
      EXPECT_EQ(codes, back) << bits << " bits, " << count << " codes";
    }
}

}  // namespace
}  // namespace lowp::formats
