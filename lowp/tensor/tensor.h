// Memory with a shape and a type: a view and an owner. Row-major, contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lowp/tensor/dtype.h"

namespace lowp {

using Shape = std::vector<std::int64_t>;

/// Product of the dimensions; 1 for a scalar.
std::int64_t element_count(const Shape& shape);

/// Bytes of a contiguous tensor.
std::size_t byte_count(DType type, const Shape& shape);

/// "[2, 3]".
std::string to_string(const Shape& shape);

/// Does not own its memory.
struct TensorView {
  DType dtype = DType::u8;
  Shape shape;
  std::span<const std::byte> bytes;

  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
};

/// Owns its memory, zero-initialised.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType type, Shape shape) : dtype_(type), shape_(std::move(shape)), bytes_(byte_count(type, shape_)) {}

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  bool empty() const { return bytes_.empty(); }
  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  TensorView view() const { return {dtype_, shape_, bytes_}; }

  /// The same bytes under another shape and type of equal size.
  Tensor reinterpret(DType type, Shape shape) &&;

  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes_.data());
  }

 private:
  DType dtype_ = DType::u8;
  Shape shape_;
  std::vector<std::byte> bytes_;
};

/// out [columns, rows] = the transpose of in [rows, columns], elements of `width` bytes (1, 2, 4 or 8) at any address.
void transpose(const std::byte* in, std::int64_t rows, std::int64_t columns, std::int64_t width, std::byte* out);

/// Copies `count` values from element `begin` of a f16, bf16 or f32 tensor into f32; exact. Unaligned memory is fine.
void load_f32(const TensorView& tensor, std::int64_t begin, std::int64_t count, float* out);

/// Value of element i of a f16, bf16 or f32 tensor.
float load_one(const TensorView& tensor, std::int64_t i);

/// Rounds f32 values to f16, bf16 or f32 and stores them from element `begin`.
void store_rounded(Tensor& tensor, std::int64_t begin, std::span<const float> values);

}  // namespace lowp
