#include "lowp/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <tuple>
#include <utility>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/json.h"

namespace lowp::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian, and is mapped as it is");

// The reference reader's limit, and ours: far above what a real header needs, low enough to bound the work on a hostile
// one.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int kMaxDepth = 4;
constexpr std::size_t kMaxRank = 8;
constexpr std::size_t kMaxNameBytes = 1024;
constexpr std::size_t kMinEntryBytes = 16;

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kDataAlignment = 64;
constexpr std::string_view kMetadataKey = "__metadata__";

// Why a name cannot be a tensor's; empty if it can.
std::string_view name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kMaxNameBytes) return "is longer than 1024 bytes";
  if (name.find('\0') != name.npos) return "contains NUL";
  return "";
}

// Parses one tensor's entry; every refusal names the file and the tensor.
class EntryParser {
 public:
  EntryParser(const std::string& where, const std::string& name, const Json& fields)
      : where_(where), name_(name), fields_(fields) {}

  TensorEntry parse() const {
    if (const auto fault = name_fault(name_); !fault.empty()) refuse("the name {}", fault);
    if (!fields_.is_object()) refuse("expected an object, found {}", quote(fields_.dump()));
    TensorEntry entry{.name = name_, .dtype = dtype(), .shape = shape()};
    std::tie(entry.begin, entry.end) = data_offsets();
    const std::uint64_t bytes = byte_count_of(entry);
    if (entry.end - entry.begin != bytes)
      refuse("data_offsets [{}, {}] hold {} bytes, but {} {} needs {}", entry.begin, entry.end, entry.end - entry.begin,
             lowp::name(entry.dtype), to_string(entry.shape), bytes);
    return entry;
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::bad_input, "{}: tensor {}: {}", where_, quote(name_),
         fmt::format(format, std::forward<Args>(args)...));
  }

  const Json& field(const char* key) const {
    const auto found = fields_.find(key);
    if (found == fields_.end()) refuse("'{}' is missing", key);
    return *found;
  }

  DType dtype() const {
    const Json& value = field("dtype");
    if (!value.is_string()) refuse("dtype must be a string, found {}", quote(value.dump()));
    const auto& text = value.get_ref<const std::string&>();
    const auto found = find_dtype(text);
    if (!found) refuse("unknown dtype {}", quote(text));
    return *found;
  }

  // Only whole numbers from 0 to 2^64 - 1 have the type asked for here; no value has passed through a double.
  std::uint64_t integer(const Json& value, const char* key) const {
    if (!value.is_number_unsigned())
      refuse("{} must hold integers from 0 to 2^64 - 1, found {}", key, quote(value.dump()));
    return value.get<std::uint64_t>();
  }

  Shape shape() const {
    const Json& value = field("shape");
    if (!value.is_array()) refuse("shape must be an array, found {}", quote(value.dump()));
    if (value.size() > kMaxRank) refuse("shape has {} dimensions, at most {} accepted", value.size(), kMaxRank);
    Shape shape;
    for (const Json& size : value) {
      const std::uint64_t number = integer(size, "shape");
      if (!std::in_range<std::int64_t>(number)) refuse("shape holds {}, at most 2^63 - 1 accepted", number);
      shape.push_back(static_cast<std::int64_t>(number));
    }
    return shape;
  }

  std::pair<std::uint64_t, std::uint64_t> data_offsets() const {
    const Json& value = field("data_offsets");
    if (!value.is_array() || value.size() != 2)
      refuse("data_offsets must be [begin, end], found {}", quote(value.dump()));
    const std::uint64_t begin = integer(value[0], "data_offsets"), end = integer(value[1], "data_offsets");
    if (end < begin) refuse("data_offsets [{}, {}] end before they begin", begin, end);
    return {begin, end};
  }

  // Dimensions of zero are left out of the product, so that it bounds the strides of empty tensors too.
  std::uint64_t byte_count_of(const TensorEntry& entry) const {
    std::int64_t bits = info(entry.dtype).bits;
    bool empty = false;
    for (const std::int64_t size : entry.shape) {
      if (size == 0) {
        empty = true;
      } else if (__builtin_mul_overflow(bits, size, &bits)) {
        refuse("{} {} has more than 2^63 - 1 bits", lowp::name(entry.dtype), to_string(entry.shape));
      }
    }
    if (empty) return 0;
    if (bits % 8 != 0)
      refuse("{} {} has {} bits, not whole bytes", lowp::name(entry.dtype), to_string(entry.shape), bits);
    return static_cast<std::uint64_t>(bits) / 8;
  }

  const std::string& where_;
  const std::string& name_;
  const Json& fields_;
};

// The length that the file starts with.
std::size_t header_bytes(std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() < kLengthBytes)
    fail(ErrorCode::bad_input, "{}: {} bytes, a safetensors file has at least {}", where, bytes.size(), kLengthBytes);
  std::uint64_t length;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes)
    fail(ErrorCode::bad_input, "{}: header of {} bytes, at most {} accepted", where, length, kMaxHeaderBytes);
  if (length > bytes.size() - kLengthBytes)
    fail(ErrorCode::bad_input, "{}: header of {} bytes, but only {} follow in the file", where, length,
         bytes.size() - kLengthBytes);
  return static_cast<std::size_t>(length);
}

Json parse_header_json(std::string_view text, const std::string& where) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos || text[first] != '{')
    fail(ErrorCode::bad_input, "{}: the header must be a JSON object, found {}", where,
         quote(text.substr(std::min(first, text.size()), 16)));
  return parse_json(text, where + ": header", {.depth = kMaxDepth, .bytes = kMaxHeaderBytes});
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& where) {
  if (!value.is_object())
    fail(ErrorCode::bad_input, "{}: __metadata__ must be an object, found {}", where, quote(value.dump()));
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      fail(ErrorCode::bad_input, "{}: __metadata__ {} must be a string, found {}", where, quote(key),
           quote(text.dump()));
    metadata.emplace(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

// Puts the tensors into file order and proves that they fill the data buffer: no holes, no overlaps, nothing after the
// last.
void check_layout(std::vector<TensorEntry>& tensors, std::uint64_t data_bytes, const std::string& where) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t end = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.begin != end)
      fail(ErrorCode::bad_input, "{}: tensor {}: data_offsets [{}, {}] leave a hole or overlap: expected a begin of {}",
           where, quote(tensor.name), tensor.begin, tensor.end, end);
    end = tensor.end;
  }
  if (end > data_bytes)
    fail(ErrorCode::bad_input, "{}: truncated: tensor {} ends at byte {} of the data buffer, but the file holds {}",
         where, quote(tensors.back().name), end, data_bytes);
  if (end < data_bytes)
    fail(ErrorCode::bad_input, "{}: {} bytes follow the last tensor, which ends at byte {} of the data buffer", where,
         data_bytes - end, end);
}

std::string json_string(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail(ErrorCode::bad_input, "cannot write a safetensors header: {} is not UTF-8", quote(text));
  }
}

// Lays the tensors out one after the other.
void place(std::vector<TensorEntry>& tensors) {
  std::set<std::string_view> names;
  std::uint64_t end = 0;
  for (TensorEntry& tensor : tensors) {
    LOWP_CHECK(name_fault(tensor.name).empty(), "tensor {}: the name {}", quote(tensor.name), name_fault(tensor.name));
    LOWP_CHECK(tensor.name != kMetadataKey && names.insert(tensor.name).second, "tensor '{}' given twice", tensor.name);
    LOWP_CHECK(tensor.shape.size() <= kMaxRank, "tensor '{}' has shape {}", tensor.name, to_string(tensor.shape));
    LOWP_CHECK(element_count(tensor.shape) * info(tensor.dtype).bits % 8 == 0, "tensor '{}': {} {} is not whole bytes",
               tensor.name, name(tensor.dtype), to_string(tensor.shape));
    tensor.begin = end;
    end += byte_count(tensor.dtype, tensor.shape);
    tensor.end = end;
  }
}

std::string write_header(const std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata) {
  std::string text = fmt::format("{{\"{}\":{{", kMetadataKey);
  for (const auto& [key, value] : metadata)
    text += fmt::format("{}{}:{}", text.back() == '{' ? "" : ",", json_string(key), json_string(value));
  text += '}';
  for (const TensorEntry& tensor : tensors)
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(tensor.name),
                        name(tensor.dtype), fmt::join(tensor.shape, ","), tensor.begin, tensor.end);
  text += '}';
  text.resize(round_up(kLengthBytes + text.size(), kDataAlignment) - kLengthBytes, ' ');
  return text;
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  const std::size_t length = header_bytes(bytes, where);
  const Json root = parse_header_json({reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length}, where);

  SafetensorsHeader header;
  header.data_offset = kLengthBytes + length;
  const std::size_t count = root.size() - root.count(kMetadataKey);
  if (count > length / kMinEntryBytes)
    fail(ErrorCode::bad_input, "{}: {} tensors in a header of {} bytes, at most {} fit", where, count, length,
         length / kMinEntryBytes);
  for (const auto& [name, value] : root.items()) {
    if (name == kMetadataKey) {
      header.metadata = parse_metadata(value, where);
    } else {
      header.tensors.push_back(EntryParser(where, name, value).parse());
    }
  }
  check_layout(header.tensors, bytes.size() - header.data_offset, where);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(path), header_(parse_safetensors(file_.bytes(), path)) {
  for (std::size_t i = 0; i < header_.tensors.size(); ++i) index_.emplace(header_.tensors[i].name, i);
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

TensorView SafetensorsFile::view(const TensorEntry& entry) const {
  return {entry.dtype, entry.shape, file_.bytes().subspan(header_.data_offset + entry.begin, entry.end - entry.begin)};
}

SafetensorsWriter::SafetensorsWriter(FileWriter& out, std::vector<TensorEntry> tensors,
                                     std::map<std::string, std::string> metadata)
    : out_(out), tensors_(std::move(tensors)) {
  LOWP_CHECK(out_.size() == 0, "a safetensors header starts the file, but {} bytes are written", out_.size());
  metadata["format"] = "pt";  // transformers before 4.47.1 refuses a file without it
  place(tensors_);
  const std::string header = write_header(tensors_, metadata);
  if (header.size() > kMaxHeaderBytes)
    fail(ErrorCode::unsupported, "a safetensors header of {} bytes, at most {} possible: use more files", header.size(),
         kMaxHeaderBytes);
  const std::uint64_t length = header.size();
  out_.append(std::as_bytes(std::span(&length, 1)));
  out_.append(header);
}

void SafetensorsWriter::append(const std::string& tensor, std::span<const std::byte> bytes) {
  const auto size = [&] { return tensors_[next_].end - tensors_[next_].begin; };
  while (next_ < tensors_.size() && tensors_[next_].name != tensor && written_ == size()) {
    ++next_;
    written_ = 0;
  }
  LOWP_CHECK(next_ < tensors_.size(), "tensor '{}' was not announced, or its turn is over", tensor);
  LOWP_CHECK(tensors_[next_].name == tensor, "tensor '{}' while '{}' has {} of {} bytes", tensor, tensors_[next_].name,
             written_, size());
  LOWP_CHECK(bytes.size() <= size() - written_, "tensor '{}': {} bytes after {} of {}", tensor, bytes.size(), written_,
             size());
  out_.append(bytes);
  written_ += bytes.size();
}

void SafetensorsWriter::finish() {
  for (; next_ < tensors_.size(); ++next_, written_ = 0) {
    const TensorEntry& tensor = tensors_[next_];
    LOWP_CHECK(written_ == tensor.end - tensor.begin, "tensor '{}' has {} of {} bytes", tensor.name, written_,
               tensor.end - tensor.begin);
  }
}

}  // namespace lowp::checkpoint
