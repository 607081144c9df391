// GGUF, the container of llama.cpp: typed metadata, then tensors (checkpoint-formats 8.1).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/tensor/tensor.h"

namespace lowp::checkpoint {

/// A row of the table of ggml types: `values` in a block of `bytes`.
struct GgmlType {
  std::uint32_t id = 0;
  std::string_view name;
  int values = 1, bytes = 0;
  std::optional<DType> plain;  // where a block is one value of a type that tensors have anyway
};

/// Types of published files; nullptr for another id or name.
const GgmlType* find_ggml_type(std::uint32_t id);
const GgmlType* find_ggml_type(std::string_view name);

/// Types of metadata values, by their ids.
enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
std::string_view name(GgufType type);

/// A metadata value; an array is a JSON array of values of type `element`.
struct GgufValue {
  GgufType type = GgufType::u32;
  GgufType element = GgufType::u32;
  Json value;
};

/// The metadata by key. Getters return nullopt (nullptr) for a key that is absent and throw Error(bad_input), naming
/// file, key, expected and found, for a value of another kind.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string where) : where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
  /// False if the key is there already.
  bool add(std::string key, GgufValue value) { return values_.emplace(std::move(key), std::move(value)).second; }
  const GgufValue* find(std::string_view key) const;
  /// A whole number of any integer type, not negative.
  std::optional<std::int64_t> count(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  /// An array whose elements have this type.
  const Json* array(std::string_view key, GgufType element) const;

 private:
  [[noreturn]] void fail_kind(std::string_view key, std::string_view expected, const GgufValue& found) const;

  std::string where_;
  std::map<std::string, GgufValue, std::less<>> values_;
};

/// A tensor. The shape has the contiguous dimension last, the reverse of the file's order.
struct GgufTensor {
  std::string name;
  const GgmlType* type = nullptr;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the data
};

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in file order
  std::uint64_t data_offset = 0;
  std::uint64_t alignment = 32;
};

/// Parses and checks a whole file, versions 2 and 3: every count and length against the bytes that are left before
/// anything is allocated for it, names unique, at most 63 bytes a tensor name, 1 to 4 dimensions, whole blocks, offsets
/// without holes, nothing after the data. Throws Error(bad_input) naming file, place, expected and found;
/// Error(unsupported) for a big-endian file, another version or a type that is not in the table.
GgufHeader parse_gguf(std::span<const std::byte> bytes, const std::string& where);

}  // namespace lowp::checkpoint
