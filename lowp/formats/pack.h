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

/// Writes codes (low `bits` bits of each byte) as a bit stream: code i occupies bits [i*bits, i*bits+bits), counted
/// from bit 0 of byte 0. For 4 bits: element 2i in the low nibble. `out` has packed_bytes(codes.size(), bits) bytes;
/// the rest is zero.
constexpr void pack_bits(std::span<const std::uint8_t> codes, int bits, std::span<std::uint8_t> out) {
  for (std::uint8_t& byte : out) byte = 0;
  std::size_t position = 0;
  for (const std::uint8_t code : codes) {
    const std::uint32_t value = static_cast<std::uint32_t>(code & ((1u << bits) - 1u)) << (position % 8);
    out[position / 8] = static_cast<std::uint8_t>(out[position / 8] | value);
    if (value >> 8) out[position / 8 + 1] = static_cast<std::uint8_t>(value >> 8);
    position += static_cast<std::size_t>(bits);
  }
}

/// Inverse of pack_bits; codes are zero-extended.
constexpr void unpack_bits(std::span<const std::uint8_t> in, int bits, std::span<std::uint8_t> codes) {
  std::size_t position = 0;
  for (std::uint8_t& code : codes) {
    std::uint32_t value = in[position / 8];
    if (position % 8 + static_cast<std::size_t>(bits) > 8)
      value |= static_cast<std::uint32_t>(in[position / 8 + 1]) << 8;
    code = static_cast<std::uint8_t>((value >> (position % 8)) & ((1u << bits) - 1u));
    position += static_cast<std::size_t>(bits);
  }
}

}  // namespace lowp::formats
