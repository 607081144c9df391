#include "lowp/checkpoint/packing.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/pack.h"

namespace lowp::checkpoint {
namespace {

void for_rows(std::int64_t rows, std::int64_t columns, const std::function<void(std::int64_t)>& body) {
  parallel_for(rows, ceil_div<std::int64_t>(1 << 16, std::max<std::int64_t>(columns, 1)), [&](auto begin, auto end) {
    for (std::int64_t r = begin; r < end; ++r) body(r);
  });
}

template <typename T>
std::span<T> row_of(T* data, std::int64_t row, std::int64_t stride, std::int64_t count) {
  return {data + row * stride, static_cast<std::size_t>(count)};
}

// Each row of codes as a stream at the start of each row of out, which has `stride` bytes; `flip` is xored to each
// code.
void pack_rows(const Tensor& codes, int bits, std::uint8_t flip, std::int64_t stride, Tensor& out) {
  const std::int64_t columns = codes.shape()[1];
  for_rows(codes.shape()[0], columns, [&](std::int64_t r) {
    const auto in = row_of(codes.as<std::uint8_t>(), r, columns, columns);
    std::vector<std::uint8_t> row(in.begin(), in.end());
    for (std::uint8_t& code : row) code ^= flip;
    formats::pack_bits(row, bits, row_of(out.as<std::uint8_t>(), r, stride, formats::packed_bytes(columns, bits)));
  });
}

// The inverse, zero-extended. A row starts every `stride` bytes; each `run` codes start at a new word (run = columns:
// one stream).
void unpack_rows(const std::uint8_t* in, int bits, std::int64_t stride, std::int64_t run, Tensor& codes) {
  const std::int64_t columns = codes.shape()[1];
  for_rows(codes.shape()[0], columns, [&](std::int64_t r) {
    for (std::int64_t c = 0; c < columns; c += run) {
      const std::int64_t count = std::min(run, columns - c);
      const auto stream = row_of(in + c / run * 4, r, stride, formats::packed_bytes(count, bits));
      formats::unpack_bits(stream, bits, row_of(codes.as<std::uint8_t>() + c, r, columns, count));
    }
  });
}

}  // namespace

Tensor transpose(const TensorView& in) {
  Tensor out(in.dtype, {in.shape[1], in.shape[0]});
  lowp::transpose(in.bytes.data(), in.shape[0], in.shape[1], info(in.dtype).bits / 8, out.bytes().data());
  return out;
}

std::int64_t dense_words(std::int64_t count, int bits) { return ceil_div<std::int64_t>(count * bits, 32); }

std::int64_t aligned_words(std::int64_t count, int bits) { return ceil_div<std::int64_t>(count, 32 / bits); }

// Offset binary is two's complement with the top bit flipped.
Tensor pack_words(const Tensor& codes, int bits) {
  Tensor packed(DType::i32, {codes.shape()[0], dense_words(codes.shape()[1], bits)});
  pack_rows(codes, bits, static_cast<std::uint8_t>(1u << (bits - 1)), packed.shape()[1] * 4, packed);
  return packed;
}

Tensor unpack_words(const TensorView& packed, int bits, std::int64_t columns) {
  Tensor codes(DType::i8, {packed.shape[0], columns});
  const std::int64_t words = packed.shape[1];
  const bool dense = words == dense_words(columns, bits);
  LOWP_CHECK(dense || words == aligned_words(columns, bits), "{} words of {} codes", words, columns);
  unpack_rows(packed.as<std::uint8_t>(), bits, words * 4, dense ? columns : 32 / bits, codes);
  for (std::byte& code : codes.bytes())
    code = static_cast<std::byte>(static_cast<std::int8_t>(std::to_integer<int>(code) - (1 << (bits - 1))));
  return codes;
}

Tensor pack_bytes(const Tensor& codes, int bits) {
  Tensor packed(DType::u8, {codes.shape()[0], formats::packed_bytes(codes.shape()[1], bits)});
  pack_rows(codes, bits, 0, packed.shape()[1], packed);
  return packed;
}

Tensor unpack_bytes(const TensorView& packed, int bits, std::int64_t columns) {
  Tensor codes(DType::u8, {packed.shape[0], columns});
  LOWP_CHECK(packed.shape[1] == formats::packed_bytes(columns, bits), "{} bytes of {} codes", packed.shape[1], columns);
  unpack_rows(packed.as<std::uint8_t>(), bits, packed.shape[1], columns, codes);
  return codes;
}

Tensor pack_zero_points(const Tensor& zero_points, int bits) {
  return transpose(pack_words(transpose(zero_points.view()), bits).view());
}

Tensor unpack_zero_points(const TensorView& packed, int bits, std::int64_t rows) {
  const Tensor words = transpose(packed);
  return transpose(unpack_words(words.view(), bits, rows).view());
}

}  // namespace lowp::checkpoint
