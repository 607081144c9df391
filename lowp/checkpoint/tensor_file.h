// A file of tensors, whatever its container.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "lowp/tensor/tensor.h"

namespace lowp::checkpoint {

/// A tensor of a file: where it is and what it is.
struct TensorEntry {
  std::string name;
  DType dtype = DType::u8;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the data buffer
  /// The ggml type ("Q4_K") whose blocks the bytes are: then `dtype` is U8 and `shape` [rows, bytes of a row]. Else "".
  std::string_view blocks = "";

  /// What a person calls its type.
  std::string_view type_name() const { return blocks.empty() ? lowp::name(dtype) : blocks; }
};

/// A mapped file.
class TensorFile {
 public:
  virtual ~TensorFile() = default;

  virtual const std::string& path() const = 0;
  /// Free text by key, "__metadata__" of safetensors.
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  /// The bytes of one of the file's entries; they live as long as the file.
  virtual TensorView view(const TensorEntry& entry) const = 0;
  /// Lets the pages of a tensor (or of a part of it) leave memory.
  virtual void release(std::span<const std::byte> part) const = 0;
};

}  // namespace lowp::checkpoint
