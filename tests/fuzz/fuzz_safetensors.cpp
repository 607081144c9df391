// parse_safetensors refuses any bytes with Error, or every tensor it returns lies in the file, with the size that its
// shape says, one after the other.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/checkpoint/safetensors.h"

namespace {

constexpr std::size_t kLengthBytes = 8;

void require(bool condition) {
  if (!condition) std::abort();
}

void parse_and_touch(std::span<const std::byte> file) {
  lowp::checkpoint::SafetensorsHeader header;
  try {
    header = lowp::checkpoint::parse_safetensors(file, "fuzz");
  } catch (const lowp::Error&) {
    return;
  }
  static volatile std::uint8_t sink;
  std::uint64_t end = header.data_offset;
  require(end <= file.size());
  for (const auto& tensor : header.tensors) {
    require(!tensor.name.empty() && tensor.name.size() <= 1024 && tensor.shape.size() <= 8);
    require(header.data_offset + tensor.begin == end && tensor.begin <= tensor.end);
    require(lowp::byte_count(tensor.dtype, tensor.shape) == tensor.end - tensor.begin);
    end = header.data_offset + tensor.end;
    require(end <= file.size());
    for (std::uint64_t i = tensor.begin; i < tensor.end; ++i)
      sink = sink ^ std::to_integer<std::uint8_t>(file[header.data_offset + i]);
  }
  require(end == file.size());
}

// Makes the length field and the file's size agree with the text, so that mutations get past the first checks: the
// header ends at the last '}', and `data_bytes` follow it.
std::string repaired(std::string_view file, std::size_t data_bytes) {
  const std::size_t end = file.find_last_of('}');
  if (end == file.npos || end < kLengthBytes) return std::string(file);
  std::string result(file.substr(0, end + 1));
  const std::uint64_t length = result.size() - kLengthBytes;
  std::memcpy(result.data(), &length, kLengthBytes);
  return result.append(data_bytes, '\x5A');
}

// A file of this header; the length is filled in.
std::string seed(std::string_view header, std::size_t data_bytes) {
  return repaired(std::string(kLengthBytes, '\0').append(header), data_bytes);
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  return {
      seed("{}", 0),
      seed(R"({"__metadata__":{"format":"pt"}})", 0),
      seed(R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})", 16),
      seed(
          R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}})",
          16),
      seed(
          R"({"b":{"dtype":"F4","shape":[4,2],"data_offsets":[12,16]},"a":{"dtype":"F6_E2M3","shape":[4,4],"data_offsets":[0,12]}})",
          16),
      seed(
          R"({"e":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]},"f":{"dtype":"F64","shape":[1,1,1,1,1,1,1,2],"data_offsets":[0,16]}})",
          16),
      seed(
          R"(  {"__metadata__":{"format":"pt","note":"{}"},"a\u00e9":{"dtype":"F8_E8M0","shape":[16],"data_offsets":[0,16],"x":[[]]}})",
          16),
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  parse_and_touch(bytes);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::size_t data_bytes : {0, 16}) {
    const std::string file = repaired(text, data_bytes);
    parse_and_touch(std::as_bytes(std::span(file)));
  }
  return 0;
}
