#include "lowp/checkpoint/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/base/whole_number.h"

namespace lowp::checkpoint {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::size_t kMaxTensorName = 63;
constexpr std::size_t kMaxKey = 65535;
constexpr std::uint64_t kMaxArray = std::uint64_t{1} << 30, kMaxString = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
constexpr std::uint32_t kMaxDims = 4;
// The shortest spellings: key length, one byte of key, type, one byte; name length, one byte, dims, one dim, type,
// offset.
constexpr std::uint64_t kMinValueBytes = 8 + 1 + 4 + 1, kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, DType::f32},  {1, "F16", 1, 2, DType::f16},    {2, "Q4_0", 32, 18, {}},
    {3, "Q4_1", 32, 20, {}},       {6, "Q5_0", 32, 22, {}},         {7, "Q5_1", 32, 24, {}},
    {8, "Q8_0", 32, 34, {}},       {10, "Q2_K", 256, 84, {}},       {11, "Q3_K", 256, 110, {}},
    {12, "Q4_K", 256, 144, {}},    {13, "Q5_K", 256, 176, {}},      {14, "Q6_K", 256, 210, {}},
    {20, "IQ4_NL", 32, 18, {}},    {23, "IQ4_XS", 256, 136, {}},    {24, "I8", 1, 1, DType::i8},
    {25, "I16", 1, 2, DType::i16}, {26, "I32", 1, 4, DType::i32},   {27, "I64", 1, 8, DType::i64},
    {28, "F64", 1, 8, DType::f64}, {30, "BF16", 1, 2, DType::bf16}, {34, "TQ1_0", 256, 54, {}},
    {35, "TQ2_0", 256, 66, {}},    {39, "MXFP4", 32, 17, {}},       {40, "NVFP4", 64, 36, {}},
};

struct ValueType {
  std::string_view name;
  std::size_t bytes;  // 0: varies
};
constexpr auto kValueTypes = std::to_array<ValueType>({{"u8", 1},
                                                       {"i8", 1},
                                                       {"u16", 2},
                                                       {"i16", 2},
                                                       {"u32", 4},
                                                       {"i32", 4},
                                                       {"f32", 4},
                                                       {"bool", 1},
                                                       {"string", 0},
                                                       {"array", 0},
                                                       {"u64", 8},
                                                       {"i64", 8},
                                                       {"f64", 8}});

// Reads a file from its start; whatever would go beyond its end is an error that names `what`.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  std::uint64_t position() const { return at_; }
  std::uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > left())
      fail(ErrorCode::bad_input, "{}: {}: expected {} bytes at offset {}, {} are left", where_, what, count, at_,
           left());
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }

  std::string_view string(std::string_view what, std::uint64_t most) {
    const auto length = number<std::uint64_t>(what);
    if (length > most)
      fail(ErrorCode::bad_input, "{}: {}: a string of {} bytes, at most {} are allowed", where_, what, length, most);
    const auto bytes = take(length, what);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (const auto at = find_invalid_utf8(text); at != text.npos)
      fail(ErrorCode::bad_input, "{}: {}: {} is not UTF-8", where_, what, quote(text));
    return text;
  }

  GgufType type(std::string_view what) {
    const auto id = number<std::uint32_t>(what);
    if (id >= kValueTypes.size()) fail(ErrorCode::bad_input, "{}: {}: no value type has the id {}", where_, what, id);
    return static_cast<GgufType>(id);
  }

  Json scalar(GgufType type, std::string_view what) {
    switch (type) {
      case GgufType::u8:
        return number<std::uint8_t>(what);
      case GgufType::i8:
        return number<std::int8_t>(what);
      case GgufType::u16:
        return number<std::uint16_t>(what);
      case GgufType::i16:
        return number<std::int16_t>(what);
      case GgufType::u32:
        return number<std::uint32_t>(what);
      case GgufType::i32:
        return number<std::int32_t>(what);
      case GgufType::f32:
        return number<float>(what);
      case GgufType::boolean: {
        const auto byte = number<std::uint8_t>(what);
        if (byte > 1) fail(ErrorCode::bad_input, "{}: {}: expected a bool, 0 or 1, found {}", where_, what, byte);
        return byte == 1;
      }
      case GgufType::string:
        return std::string(string(what, kMaxString));
      case GgufType::u64:
        return number<std::uint64_t>(what);
      case GgufType::i64:
        return number<std::int64_t>(what);
      case GgufType::f64:
        return number<double>(what);
      case GgufType::array:
        break;
    }
    fail(ErrorCode::bad_input, "{}: {}: an array of arrays", where_, what);
  }

  GgufValue value(std::string_view what) {
    GgufValue result;
    result.type = type(what);
    if (result.type != GgufType::array) {
      result.value = scalar(result.type, what);
      return result;
    }
    result.element = type(what);
    const auto count = number<std::uint64_t>(what);
    const std::uint64_t least = result.element == GgufType::string ? 8 : kValueTypes[index(result.element)].bytes;
    if (result.element == GgufType::array) fail(ErrorCode::bad_input, "{}: {}: an array of arrays", where_, what);
    if (count > kMaxArray || count > left() / least)
      fail(ErrorCode::bad_input, "{}: {}: an array of {} {} values, {} bytes are left", where_, what, count,
           name(result.element), left());
    result.value = Json::array();
    auto& list = result.value.get_ref<Json::array_t&>();
    list.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) list.push_back(scalar(result.element, what));
    return result;
  }

  // A count of things of which each takes at least `least` bytes.
  std::uint64_t count(std::string_view what, std::uint64_t least) {
    const auto found = number<std::uint64_t>(what);
    if (found > left() / least)
      fail(ErrorCode::bad_input, "{}: {} {}, but the file has only {} bytes more", where_, found, what, left());
    return found;
  }

 private:
  static std::size_t index(GgufType type) { return static_cast<std::size_t>(type); }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  std::uint64_t at_ = 0;
};

void check_version(std::uint32_t version, const std::string& where) {
  if (version == 2 || version == 3) return;
  if (__builtin_bswap32(version) == 2 || __builtin_bswap32(version) == 3)
    fail(ErrorCode::unsupported, "{}: a big-endian GGUF file", where);
  fail(ErrorCode::unsupported, "{}: GGUF version {}, expected 2 or 3", where, version);
}

GgufMetadata read_metadata(Reader& in, std::uint64_t count, const std::string& where) {
  GgufMetadata metadata(where);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string key(in.string("a metadata key", kMaxKey));
    if (key.empty()) fail(ErrorCode::bad_input, "{}: a metadata key is empty", where);
    GgufValue value = in.value(quote(key));
    if (!metadata.add(key, std::move(value)))
      fail(ErrorCode::bad_input, "{}: metadata has {} twice", where, quote(key));
  }
  return metadata;
}

std::uint64_t read_alignment(const GgufMetadata& metadata) {
  const GgufValue* found = metadata.find("general.alignment");
  if (!found) return 32;
  const std::uint64_t value = found->type == GgufType::u32 ? found->value.get<std::uint64_t>() : 0;
  if (!std::has_single_bit(value) || value > kMaxAlignment)
    fail(ErrorCode::bad_input, "{}: general.alignment: expected a u32 that is a power of two up to {}, found {} {}",
         metadata.where(), kMaxAlignment, name(found->type), quote(found->value.dump()));
  return value;
}

// Leaves begin and end for check_layout(), but for the offset that the file names, in begin.
GgufTensor read_tensor(Reader& in, const std::string& where) {
  GgufTensor tensor;
  tensor.name = in.string("a tensor name", kMaxTensorName);
  if (tensor.name.empty()) fail(ErrorCode::bad_input, "{}: a tensor name is empty", where);
  const std::string what = fmt::format("tensor {}", quote(tensor.name));
  const auto dims = in.number<std::uint32_t>(what);
  if (dims < 1 || dims > kMaxDims)
    fail(ErrorCode::bad_input, "{}: {}: {} dimensions, expected 1 to {}", where, what, dims, kMaxDims);
  std::uint64_t values = 1;
  for (std::uint32_t d = 0; d < dims; ++d) {
    const auto size = in.number<std::int64_t>(what);
    if (size < 1) fail(ErrorCode::bad_input, "{}: {}: dimension {} is {}", where, what, d, size);
    if (values >
        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / static_cast<std::uint64_t>(size))
      fail(ErrorCode::bad_input, "{}: {}: its dimensions multiply to more than 2^63", where, what);
    values *= static_cast<std::uint64_t>(size);
    tensor.shape.insert(tensor.shape.begin(), size);
  }
  const auto id = in.number<std::uint32_t>(what);
  tensor.type = find_ggml_type(id);
  if (!tensor.type)
    fail(ErrorCode::unsupported, "{}: {}: the ggml type {} is not one that lowp reads", where, what, id);
  if (tensor.shape.back() % tensor.type->values != 0)
    fail(ErrorCode::bad_input, "{}: {}: rows of {} values, and a block of {} has {}", where, what, tensor.shape.back(),
         tensor.type->name, tensor.type->values);
  tensor.begin = in.number<std::uint64_t>(what);
  return tensor;
}

// Offsets must follow one another, each padded to the alignment, up to the end of the file.
void check_layout(GgufHeader& header, std::uint64_t data_bytes, const std::string& where) {
  std::uint64_t end = 0;
  for (GgufTensor& tensor : header.tensors) {
    const std::uint64_t begin = round_up(end, header.alignment);
    if (tensor.begin != begin)
      fail(ErrorCode::bad_input, "{}: tensor {}: expected the offset {}, found {}", where, quote(tensor.name), begin,
           tensor.begin);
    const auto blocks =
        static_cast<std::uint64_t>(element_count(tensor.shape)) / static_cast<std::uint64_t>(tensor.type->values);
    const auto bytes = static_cast<std::uint64_t>(tensor.type->bytes);
    if (begin > data_bytes || blocks > (data_bytes - begin) / bytes)
      fail(ErrorCode::bad_input, "{}: tensor {}: {} {} at offset {} ends beyond the {} bytes of data", where,
           quote(tensor.name), tensor.type->name, to_string(tensor.shape), begin, data_bytes);
    end = begin + blocks * bytes;
    tensor.end = end;
  }
  if (data_bytes > round_up(end, header.alignment))
    fail(ErrorCode::bad_input, "{}: {} bytes after the last tensor", where,
         data_bytes - round_up(end, header.alignment));
}

}  // namespace

const GgmlType* find_ggml_type(std::uint32_t id) {
  for (const GgmlType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

const GgmlType* find_ggml_type(std::string_view name) {
  for (const GgmlType& type : kTypes)
    if (type.name == name) return &type;
  return nullptr;
}

std::string_view name(GgufType type) { return kValueTypes[static_cast<std::size_t>(type)].name; }

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto at = values_.find(key);
  return at == values_.end() ? nullptr : &at->second;
}

void GgufMetadata::fail_kind(std::string_view key, std::string_view expected, const GgufValue& found) const {
  const bool is_array = found.type == GgufType::array;
  fail(ErrorCode::bad_input, "{}: {}: expected {}, found {}{}", where_, key, expected,
       is_array ? fmt::format("an array of {}", name(found.element)) : std::string(name(found.type)),
       is_array ? "" : " " + quote(found.value.dump()));
}

std::optional<std::int64_t> GgufMetadata::count(std::string_view key) const {
  const GgufValue* found = find(key);
  if (!found) return std::nullopt;
  const auto value = whole_number(found->value);
  if (!value || *value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    fail_kind(key, "a whole number from 0 to 2^63 - 1", *found);
  return static_cast<std::int64_t>(*value);
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* found = find(key);
  if (!found) return std::nullopt;
  if (!found->value.is_number()) fail_kind(key, "a number", *found);
  return found->value.get<double>();
}

std::optional<bool> GgufMetadata::flag(std::string_view key) const {
  const GgufValue* found = find(key);
  if (!found) return std::nullopt;
  if (!found->value.is_boolean()) fail_kind(key, "a bool", *found);
  return found->value.get<bool>();
}

std::optional<std::string> GgufMetadata::text(std::string_view key) const {
  const GgufValue* found = find(key);
  if (!found) return std::nullopt;
  if (!found->value.is_string()) fail_kind(key, "a string", *found);
  return found->value.get<std::string>();
}

const Json* GgufMetadata::array(std::string_view key, GgufType element) const {
  const GgufValue* found = find(key);
  if (!found) return nullptr;
  if (found->type != GgufType::array || found->element != element)
    fail_kind(key, fmt::format("an array of {}", name(element)), *found);
  return &found->value;
}

GgufHeader parse_gguf(std::span<const std::byte> bytes, const std::string& where) {
  Reader in(bytes, where);
  const auto magic = in.take(kMagic.size(), "the magic");
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0)
    fail(ErrorCode::bad_input, "{}: is not GGUF: it does not begin with 'GGUF'", where);
  check_version(in.number<std::uint32_t>("the version"), where);
  const std::uint64_t tensors = in.count("tensors", kMinTensorBytes),
                      values = in.count("metadata values", kMinValueBytes);
  GgufHeader header{read_metadata(in, values, where), {}, 0, 32};
  header.alignment = read_alignment(header.metadata);
  std::set<std::string_view> names;
  header.tensors.reserve(tensors);
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor(in, where));
    if (!names.insert(header.tensors.back().name).second)
      fail(ErrorCode::bad_input, "{}: tensor {} is there twice", where, quote(header.tensors.back().name));
  }
  header.data_offset = round_up(in.position(), header.alignment);
  // A file without tensors may end unpadded.
  if (header.data_offset > bytes.size() && !header.tensors.empty())
    fail(ErrorCode::bad_input, "{}: the data begins at {}, the file has {} bytes", where, header.data_offset,
         bytes.size());
  check_layout(header, bytes.size() - std::min<std::uint64_t>(bytes.size(), header.data_offset), where);
  return header;
}

}  // namespace lowp::checkpoint
