// Random bits of stochastic rounding: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
// 1, 2, 3; SC 2011). A function of seed and counter alone, so that every backend draws the same.
#pragma once

#include <array>

#include "lowp/base/bits.h"

namespace lowp::formats {

/// Four random words for a counter of four words and a key of two, lowest words first.
LOWP_HD constexpr std::array<std::uint32_t, 4> philox(const std::array<std::uint32_t, 4>& counter,
                                                      const std::array<std::uint32_t, 2>& key) {
  std::uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = std::uint64_t{0xD2511F53u} * a, right = std::uint64_t{0xCD9E8D57u} * c;
    a = static_cast<std::uint32_t>(right >> 32) ^ b ^ k0;
    b = static_cast<std::uint32_t>(right);
    c = static_cast<std::uint32_t>(left >> 32) ^ d ^ k1;
    d = static_cast<std::uint32_t>(left);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {a, b, c, d};
}

/// Rounding by chance: which random bits the elements of a matrix take.
struct Stochastic {
  std::uint64_t seed = 0;
  std::uint64_t first = 0;  // index of the matrix's first element: codes are counted in the order of the result
};

/// The 32 random bits that round element `index` of the matrix: the first word for the counter first + index and the
/// key `seed`.
LOWP_HD constexpr std::uint32_t random_bits(const Stochastic& how, std::uint64_t index) {
  const std::uint64_t at = how.first + index;
  return philox({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at >> 32), 0, 0},
                {static_cast<std::uint32_t>(how.seed), static_cast<std::uint32_t>(how.seed >> 32)})[0];
}

}  // namespace lowp::formats
