// Weights as the kernels that decode them in registers read them: [n, k] in units of 16 rows, contiguous along K, each
// 2048 bytes of codes and the scales that go with them. For host and device.
//
// A unit is four chunks; a chunk is what a warp reads with 16 bytes a lane, and holds whole fragments of the tensor
// cores' A operand: lane (g, t) = (lane / 4, lane % 4) owns rows g and g + 8, and of every 16 of K the pairs at 2t and
// 8 + 2t, or, of e4m3 operands, of every 32 the quadruples at 4t and 16 + 4t. Bits of a code lie where few instructions
// turn them into the operand.
#pragma once

#include <cstdint>

#include "lowp/base/bits.h"

namespace lowp::kernels::cuda {

/// What the codes of packed weights are.
enum class Codes : std::uint8_t {
  bf16,
  e4m3,
  s8,
  e2m1,
  u4,
  e2m1_folded,  // e2m1 that meets e4m3 activations: decoded, with its power of two, to e4m3
};

/// Scales inside the units; one scale a row is not among them but multiplies the sum.
enum class Scales : std::uint8_t {
  none,
  exponent32,  // a power of two for 32 values, as the exponent field of a bf16
  float16,     // 5 exponent and 3 fraction bits, without subnormals, for 16 values
  bf16_32,     // a bf16 for 32 values
  bf16_128,    // a bf16 for 128 values
  step32,      // a power of two for 32 values in four bits: 0 to 11 octaves above the row's smallest
};

LOWP_HD constexpr int code_bits(Codes codes) {
  return codes == Codes::bf16 ? 16 : codes == Codes::e4m3 || codes == Codes::s8 ? 8 : 4;
}
/// Bytes of the operands that codes are decoded to, and of the activations that they meet.
LOWP_HD constexpr int operand_bytes(Codes codes) { return codes == Codes::e2m1_folded ? 1 : 2; }
LOWP_HD constexpr int scale_group(Scales scales) {
  return scales == Scales::float16 ? 16 : scales == Scales::bf16_128 ? 128 : 32;
}
LOWP_HD constexpr int scale_bits(Scales scales) {
  switch (scales) {
    case Scales::none:
      return 0;
    case Scales::step32:
      return 4;
    case Scales::exponent32:
    case Scales::float16:
      return 8;
    case Scales::bf16_32:
    case Scales::bf16_128:
      return 16;
  }
  return 0;
}

inline constexpr int kUnitRows = 16, kUnitCodes = 2048, kChunks = 4, kChunkBytes = kUnitCodes / kChunks;

/// K of a chunk and of a unit.
LOWP_HD constexpr int chunk_depth(Codes codes) { return 256 / code_bits(codes); }
LOWP_HD constexpr int unit_depth(Codes codes) { return kChunks * chunk_depth(codes); }
LOWP_HD constexpr int unit_bytes(Codes codes, Scales scales) {
  return kUnitCodes + scale_bits(scales) * kUnitRows * (unit_depth(codes) / scale_group(scales)) / 8;
}
/// K is padded with zeros to a multiple of this.
LOWP_HD constexpr int padded_depth(Codes codes) { return code_bits(codes) == 4 ? 256 : 128; }

/// Scales of a chunk that one row has; a wider group lies once for all chunks in it.
LOWP_HD constexpr int scale_slots(Codes codes, Scales scales) {
  const int slots = chunk_depth(codes) / scale_group(scales);
  return slots > 0 ? slots : 1;
}
/// Index among a unit's scales of `row`'s (0 to 15) for its `group` (from the unit's beginning).
LOWP_HD constexpr int scale_index(Codes codes, Scales scales, int row, int group) {
  const int slots = scale_slots(codes, scales);
  return ((group / slots * 8 + row % 8) * 2 + row / 8) * slots + group % slots;
}

/// Where a code lies in its chunk: 32-bit word `word` of lane `lane`, pair `pair` of that word, low or high half.
struct CodePlace {
  int lane, word, pair, half;
};
LOWP_HD constexpr CodePlace code_place(Codes codes, int row, int k) {
  const int upper = row / 8;
  if (codes == Codes::e2m1_folded) {
    const int of_step = k % 32 / 16 * 4 + k % 4;
    return {row % 8 * 4 + k % 16 / 4, k / 32 * 2 + upper, of_step / 2, of_step % 2};
  }
  const int step = k / 16, in_step = k % 16;
  const int lane = row % 8 * 4 + in_step % 8 / 2, high = in_step / 8, half = k % 2;
  if (codes == Codes::bf16) return {lane, high * 2 + upper, 0, half};
  if (code_bits(codes) == 8) return {lane, upper * 2 + step, high, half};
  return {lane, upper * 2 + step / 2, step % 2 * 2 + high, half};
}

/// The bit of a 32-bit word that holds bit `bit` of the code in a pair's half.
LOWP_HD constexpr int code_bit(Codes codes, int pair, int half, int bit) {
  constexpr int kE4m3[2][8] = {{4, 5, 6, 7, 8, 9, 10, 15}, {0, 1, 2, 3, 12, 13, 14, 11}};
  constexpr int kE2m1[4][4] = {{6, 7, 8, 15}, {12, 13, 14, 21}, {2, 3, 4, 11}, {0, 1, 10, 9}};
  switch (codes) {
    case Codes::bf16:
      return 16 * half + bit;
    case Codes::s8:
      return 16 * half + 8 * pair + bit;
    case Codes::e4m3:
      return 16 * half + kE4m3[pair][bit];
    case Codes::e2m1:
      return (16 * half + kE2m1[pair][bit]) % 32;
    case Codes::u4:
      return (16 * half + 3 + 4 * pair + bit) % 32;
    case Codes::e2m1_folded: {  // magnitudes are selectors of bytes, signs the top bits of bytes or four below
      const int i = 2 * pair + half;
      return bit < 3 ? 4 * i + bit : 8 * (i % 4) + (i < 4 ? 7 : 3);
    }
  }
  return 0;
}

}  // namespace lowp::kernels::cuda
