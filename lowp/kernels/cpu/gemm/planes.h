// Where a code stands in a half chunk: 16 outputs x 32 values of k = 512 codes of 1 to 8 bits in 64-byte lines.
//
// Codes are taken apart into units of 64 bytes: 32 words of 16 bits where a word table decodes them (kWordCodes: up to
// 5 bits outside int8 arithmetic), 64 bytes otherwise. A unit holds one code in each word or byte; planes of 4, 2 and 1
// bits share lines among units by shifts. Codes of 8 bits are one plane.
#pragma once

namespace lowp::kernels::cpu {

/// Bits of a lane of a unit: 16 for word codes, 8 for bytes. Units in a half chunk: 16 or 8.
constexpr int lane_bits(bool words) { return words ? 16 : 8; }
constexpr int units(bool words) { return words ? 16 : 8; }
constexpr bool decodes_words(bool int8_arithmetic, int bits) { return !int8_arithmetic && bits <= 5; }

/// Lines of a plane of `bits` bits, 2^n.
constexpr int plane_lines(int bits) { return bits; }

/// Unit and lane of output j (0..15) and k (0..31). Bytes under int8 arithmetic: [unit, output, 4 k]. Words: [unit,
/// output, 2 k]. Bytes that become words in pairs: in each 16 bytes, those of k % 4 < 2 first, so that unpacking the
/// halves of a 128-bit lane gives words in the order [output, 2 k].
struct Place {
  int unit, lane;
};
constexpr Place place(bool int8_arithmetic, bool words, int output, int k) {
  if (words) return {k / 2, 2 * output + k % 2};
  if (int8_arithmetic) return {k / 4, 4 * output + k % 4};
  return {k / 4, output / 4 * 16 + k % 4 / 2 * 8 + 2 * (output % 4) + k % 2};
}

}  // namespace lowp::kernels::cpu
