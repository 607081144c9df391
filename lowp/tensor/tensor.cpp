#include "lowp/tensor/tensor.h"

#include <cstring>

#include "lowp/base/error.h"
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

void load_f32(const TensorView& tensor, std::int64_t begin, std::int64_t count, float* out) {
  using formats::Elem;
  const Elem element = element_of(tensor.dtype);
  const auto width = static_cast<std::size_t>(info(tensor.dtype).bits / 8);
  const std::byte* in = tensor.bytes.data() + static_cast<std::size_t>(begin) * width;
  if (element == Elem::f32) {
    std::memcpy(out, in, static_cast<std::size_t>(count) * 4);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t code;
    std::memcpy(&code, in + 2 * i, 2);
    out[i] =
        element == Elem::bf16 ? bits_float(static_cast<std::uint32_t>(code) << 16) : formats::decode(element, code);
  }
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
  for (std::size_t i = 0; i < values.size(); ++i)
    out[i] = element == Elem::bf16
                 ? static_cast<std::uint16_t>(float_bits(formats::round_to(element, values[i])) >> 16)
                 : static_cast<std::uint16_t>(formats::encode(element, values[i], formats::Overflow::to_special));
}

}  // namespace lowp
