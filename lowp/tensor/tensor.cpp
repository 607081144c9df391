#include "lowp/tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"

namespace lowp {

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::size_t byte_count(DType type, const Shape& shape) {
  return static_cast<std::size_t>((element_count(shape) * info(type).bits + 7) / 8);
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor Tensor::reinterpret(DType type, Shape shape) && {
  LOWP_CHECK(byte_count(type, shape) == bytes_.size(), "{} {} has {} bytes, not {}", name(type), to_string(shape),
             byte_count(type, shape), bytes_.size());
  Tensor result;
  result.dtype_ = type;
  result.shape_ = std::move(shape);
  result.bytes_ = std::move(bytes_);
  return result;
}

namespace {

template <typename T>
void transpose_as(const std::byte* in, std::int64_t rows, std::int64_t columns, std::byte* out) {
  // Squares whose lines of both sides stay in the first-level cache; a thread writes whole rows of the result.
  constexpr std::int64_t kSide = 64, kSize = sizeof(T);
  parallel_for(ceil_div(columns, kSide), ceil_div<std::int64_t>(1 << 14, rows * kSide), [&](auto begin, auto end) {
    for (std::int64_t left = begin * kSide; left < std::min(end * kSide, columns); left += kSide)
      for (std::int64_t top = 0; top < rows; top += kSide)
        for (std::int64_t c = left; c < std::min(left + kSide, columns); ++c)
          for (std::int64_t r = top; r < std::min(top + kSide, rows); ++r)
            std::memcpy(out + (c * rows + r) * kSize, in + (r * columns + c) * kSize, kSize);
  });
}

}  // namespace

void transpose(const std::byte* in, std::int64_t rows, std::int64_t columns, std::int64_t width, std::byte* out) {
  if (rows == 0 || columns == 0) return;
  switch (width) {
    case 1:
      return transpose_as<std::uint8_t>(in, rows, columns, out);
    case 2:
      return transpose_as<std::uint16_t>(in, rows, columns, out);
    case 4:
      return transpose_as<std::uint32_t>(in, rows, columns, out);
    case 8:
      return transpose_as<std::uint64_t>(in, rows, columns, out);
  }
  LOWP_CHECK(false, "transposing elements of {} bytes", width);
}

void load_f32(const TensorView& tensor, std::int64_t begin, std::int64_t count, float* out) {
  using formats::Elem;
  const Elem element = element_of(tensor.dtype);
  const auto width = static_cast<std::size_t>(info(tensor.dtype).bits / 8);
  const std::byte* in = tensor.bytes.data() + static_cast<std::size_t>(begin) * width;
  if (element == Elem::f32) {
    std::memcpy(out, in, static_cast<std::size_t>(count) * 4);
    return;
  }
  const auto code = [in](std::int64_t i) {
    std::uint16_t word;
    std::memcpy(&word, in + 2 * i, 2);
    return static_cast<std::uint32_t>(word);
  };
  if (element == Elem::bf16)
    for (std::int64_t i = 0; i < count; ++i) out[i] = bits_float(code(i) << 16);
  else
    for (std::int64_t i = 0; i < count; ++i) out[i] = formats::decode(element, code(i));
}

float load_one(const TensorView& tensor, std::int64_t i) {
  float value;
  load_f32(tensor, i, 1, &value);
  return value;
}

void store_rounded(Tensor& tensor, std::int64_t begin, std::span<const float> values) {
  using formats::Elem;
  const Elem element = element_of(tensor.dtype());
  if (element == Elem::f32) {
    std::memcpy(tensor.as<float>() + begin, values.data(), values.size_bytes());
    return;
  }
  auto* out = tensor.as<std::uint16_t>() + begin;
  if (element == Elem::bf16)
    for (std::size_t i = 0; i < values.size(); ++i)
      out[i] = static_cast<std::uint16_t>(float_bits(formats::round_to(Elem::bf16, values[i])) >> 16);
  else
    for (std::size_t i = 0; i < values.size(); ++i)
      out[i] = static_cast<std::uint16_t>(formats::encode(element, values[i], formats::Overflow::to_special));
}

}  // namespace lowp
