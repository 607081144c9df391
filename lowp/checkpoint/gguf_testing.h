// GGUF files for tests, byte by byte, right or wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace lowp::checkpoint::testing {

/// Appends what a file consists of, in order; counts are the caller's.
class GgufBytes {
 public:
  GgufBytes& header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
    bytes_ += "GGUF";
    return number(version).number(tensors).number(values);
  }
  template <typename T>
  GgufBytes& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& string(std::string_view text) {
    number<std::uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  /// A metadata value of type `id` whose bytes follow.
  GgufBytes& key(std::string_view name, std::uint32_t id) { return string(name).number(id); }
  GgufBytes& text(std::string_view name, std::string_view value) { return key(name, 8).string(value); }
  GgufBytes& u32(std::string_view name, std::uint32_t value) { return key(name, 4).number(value); }
  /// `dims` in the file's order, the contiguous one first.
  GgufBytes& tensor(std::string_view name, std::initializer_list<std::int64_t> dims, std::uint32_t type,
                    std::uint64_t offset) {
    string(name).number<std::uint32_t>(static_cast<std::uint32_t>(dims.size()));
    for (const std::int64_t size : dims) number(size);
    return number(type).number(offset);
  }
  /// Pads to 32 bytes and adds so many bytes of data.
  GgufBytes& data(std::size_t count) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32);
    bytes_.append(count, '\1');
    return *this;
  }

  const std::string& bytes() const { return bytes_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(bytes_.data(), bytes_.size())); }

 private:
  std::string bytes_;
};

}  // namespace lowp::checkpoint::testing
