// From codes to bytes and back: nibbles and little-endian bit streams.
#pragma once

#include <cstdint>
#include <span>

#include "lowp/base/bits.h"

namespace lowp::formats {

/// Number of bytes of `count` codes of `bits` bits in a dense stream.
LOWP_HD constexpr std::int64_t packed_bytes(std::int64_t count, int bits) {
  return ceil_div<std::int64_t>(count * bits, 8);
}

/// Up to eight bytes as a little-endian word.
constexpr std::uint64_t word_of(std::span<const std::uint8_t> bytes) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) word |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
  return word;
}

/// Eight bytes of `bits` used bits each, one after the other in the lowest 8 * bits bits: neighbours are joined in
/// pairs, then fours, then all.
constexpr std::uint64_t squeeze(std::uint64_t codes, int bits) {
  const std::uint64_t used = ((std::uint64_t{1} << bits) - 1) * 0x0101010101010101u;
  codes &= used;
  codes = (codes & 0x00FF00FF00FF00FFu) | ((codes >> 8) & 0x00FF00FF00FF00FFu) << bits;
  codes = (codes & 0x0000FFFF0000FFFFu) | ((codes >> 16) & 0x0000FFFF0000FFFFu) << (2 * bits);
  return (codes & 0xFFFFFFFFu) | (codes >> 32) << (4 * bits);
}

/// The inverse of squeeze.
constexpr std::uint64_t spread(std::uint64_t stream, int bits) {
  const std::uint64_t quarter = (std::uint64_t{1} << (2 * bits)) - 1, one = (std::uint64_t{1} << bits) - 1;
  const std::uint64_t half = (std::uint64_t{1} << (4 * bits)) - 1;
  stream = (stream & half) | ((stream >> (4 * bits)) & half) << 32;
  stream = (stream & quarter * 0x0000000100000001u) | ((stream >> (2 * bits)) & quarter * 0x0000000100000001u) << 16;
  return (stream & one * 0x0001000100010001u) | ((stream >> bits) & one * 0x0001000100010001u) << 8;
}

/// Writes codes (low `bits` bits of each byte) as a bit stream: code i occupies bits [i*bits, i*bits+bits), counted
/// from bit 0 of byte 0. For 4 bits: element 2i in the low nibble. `out` has packed_bytes(codes.size(), bits) bytes;
/// the rest is zero.
constexpr void pack_bits(std::span<const std::uint8_t> codes, int bits, std::span<std::uint8_t> out) {
  std::size_t i = 0, at = 0;
  for (; i + 8 <= codes.size(); i += 8) {
    std::uint64_t stream = squeeze(word_of(codes.subspan(i, 8)), bits);
    for (int byte = 0; byte < bits; ++byte, stream >>= 8) out[at++] = static_cast<std::uint8_t>(stream);
  }
  if (i == codes.size()) return;
  std::uint64_t stream = squeeze(word_of(codes.subspan(i)), bits);
  for (; at < out.size(); stream >>= 8) out[at++] = static_cast<std::uint8_t>(stream);
}

/// Inverse of pack_bits; codes are zero-extended.
constexpr void unpack_bits(std::span<const std::uint8_t> in, int bits, std::span<std::uint8_t> codes) {
  const auto width = static_cast<std::size_t>(bits);
  std::size_t i = 0, at = 0;
  for (; i + 8 <= codes.size(); i += 8, at += width) {
    std::uint64_t word = spread(word_of(in.subspan(at, width)), bits);
    for (std::size_t j = 0; j < 8; ++j, word >>= 8) codes[i + j] = static_cast<std::uint8_t>(word);
  }
  if (i == codes.size()) return;
  std::uint64_t word = spread(word_of(in.subspan(at)), bits);
  for (; i < codes.size(); ++i, word >>= 8) codes[i] = static_cast<std::uint8_t>(word);
}

}  // namespace lowp::formats
