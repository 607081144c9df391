#include "lowp/formats/divide.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lowp::formats {
namespace {

TEST(Divide, ByBitsIsTheMachinesDivision) {
  std::mt19937 rng(1);
  std::vector<float> special;
  for (const std::uint32_t bits : {0u, 1u, 2u, 0x400000u, 0x7FFFFFu, 0x800000u, 0x800001u, 0x3F800000u, 0x3F800001u,
                                   0x3FFFFFFFu, 0x7F000000u, 0x7F7FFFFFu, 0x7F800000u, 0x7FC00000u, 0xBF800000u})
    special.push_back(bits_float(bits));
  const auto check = [](float a, float b) {
    const float expected = a / b, found = divide_by_bits(a, b);
    if (expected != expected)
      ASSERT_NE(found, found) << a << " / " << b;
    else
      ASSERT_EQ(float_bits(found), float_bits(expected)) << a << " / " << b;
  };
  for (const float a : special)
    for (const float b : special) check(a, b);
  for (int i = 0; i < 2000000; ++i) {
    // Short significands give exact quotients and ties, small exponents subnormal results.
    const std::uint32_t keep = i % 2 ? 0xFFFF0000u : 0xFFFFFFFFu;
    check(bits_float(rng() & keep), bits_float(rng() & keep));
    check(bits_float(rng() & keep & 0x0FFFFFFFu), bits_float((rng() & keep & 0x0FFFFFFFu) + 0x3C000000u));
  }
}

}  // namespace
}  // namespace lowp::formats
