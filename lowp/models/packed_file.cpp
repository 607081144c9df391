#include "lowp/models/packed_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/kernels/cpu/isa.h"

namespace lowp::models {
namespace {

namespace cpu = kernels::cpu;
namespace fs = std::filesystem;
using checkpoint::TensorEntry;
using cpu::PackedMatrix;

constexpr const char* kKey = "lowp_packed";
constexpr int kLayoutVersion = 1;  // of cpu::PackedMatrix: raise it when the layout or what pack() makes changes
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

constexpr const char* kArithmetic[] = {"int8", "bf16", "f32"};
constexpr const char* kScale[] = {"none", "e8m0", "e4m3", "bf16", "f32"};
constexpr const char* kOffset[] = {"none", "zero_point", "bf16", "f32"};

// 64-bit FNV-1a (Fowler, Noll, Vo).
class Fingerprint {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) value_ = (value_ ^ std::to_integer<std::uint64_t>(b)) * 0x100000001B3u;
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text.data(), text.size()))); }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325u;
};

// 64 bytes at 16 places of a tensor: other weights differ there, whatever made them.
void add_samples(Fingerprint& print, std::span<const std::byte> bytes) {
  constexpr std::size_t kPlaces = 16, kBytes = 64;
  if (bytes.size() <= kPlaces * kBytes) return print.add(bytes);
  for (std::size_t i = 0; i < kPlaces; ++i)
    print.add(bytes.subspan((bytes.size() - kBytes) / (kPlaces - 1) * i, kBytes));
}

template <typename Enum, std::size_t N>
Enum named(const char* const (&names)[N], const Json& fields, const char* key, const std::string& where) {
  const auto at = fields.find(key);
  if (at != fields.end() && at->is_string())
    for (std::size_t i = 0; i < N; ++i)
      if (*at == names[i]) return static_cast<Enum>(i);
  fail(ErrorCode::bad_input, "{}: {}: expected one of {}, found {}", where, key,
       fmt::join(std::begin(names), std::end(names), ", "), at == fields.end() ? "nothing" : quote(at->dump()));
}

std::int64_t integer(const Json& fields, const char* key, std::int64_t least, std::int64_t most,
                     const std::string& where) {
  const auto at = fields.find(key);
  if (at != fields.end() && at->is_number_integer())
    if (const auto value = at->get<std::int64_t>(); value >= least && value <= most) return value;
  fail(ErrorCode::bad_input, "{}: {}: expected {} to {}, found {}", where, key, least, most,
       at == fields.end() ? "nothing" : quote(at->dump()));
}

void require(bool holds, const std::string& where, const char* what) {
  if (!holds) fail(ErrorCode::bad_input, "{}: {}", where, what);
}

Json fields_of(const PackedMatrix& m) {
  return {{"n", m.n},
          {"k", m.k},
          {"arithmetic", kArithmetic[static_cast<int>(m.arithmetic)]},
          {"bits", m.bits},
          {"block", m.block},
          {"scale", kScale[static_cast<int>(m.scale)]},
          {"offset", kOffset[static_cast<int>(m.offset)]},
          {"bias", m.bias},
          {"lookup", m.lookup}};
}

// The tensors of a Linear, in the order in which they are written: those that are mapped first, all whole cache lines.
struct Part {
  std::string name;
  DType dtype;
  std::span<const std::byte> bytes;
};

Part data_part(const std::string& module, const PackedMatrix& m) {
  return {module + ".data", DType::u8, std::as_bytes(std::span(m.data.data(), m.data.size()))};
}

std::vector<Part> small_parts(const std::string& module, const ops::Linear& linear) {
  const PackedMatrix& m = *linear.packed();
  const auto floats = [](std::span<const float> values) { return std::as_bytes(values); };
  return {{module + ".row_scale", DType::f32, floats(m.row_scale)},
          {module + ".row_sum", DType::f32, floats(m.row_sum)},
          {module + ".pre_scale", DType::f32, floats(linear.pre_scale())},
          {module + ".bytes", DType::u8, std::as_bytes(std::span(m.bytes))},
          {module + ".words", DType::u8, std::as_bytes(std::span(m.words))}};
}

}  // namespace

std::string packed_path(const checkpoint::Checkpoint& checkpoint) {
  constexpr const char* kName = "packed.lowp";
  return checkpoint.is_folder() ? (fs::path(checkpoint.path()) / kName).string() : checkpoint.path() + "." + kName;
}

std::string packed_key(const checkpoint::Checkpoint& checkpoint, const LoadOptions& options) {
  Fingerprint print;
  if (checkpoint.config()) print.add(checkpoint.config()->dump());
  for (const checkpoint::StoredTensor& tensor : checkpoint.tensors()) {
    print.add(fmt::format("{} {} {};", tensor.entry.name, tensor.entry.type_name(), to_string(tensor.entry.shape)));
    add_samples(print, tensor.view().bytes);
  }
  const std::string head = options.head_as_others ? "same" : options.head ? options.head->name : "kept";
  return fmt::format("layout {}, model {:016x}{}, compute {}, head {}, {}", kLayoutVersion, print.value(),
                     options.recipe && !options.recipe->keeps() ? " as " + options.recipe->name : "",
                     formats::info(options.compute).name, head,
                     kArithmetic[static_cast<int>(cpu::gemm_kernels(cpu::isa()).wide)]);
}

PackedMatrix parse_packed_fields(const Json& fields, const std::string& where) {
  if (!fields.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, fields.type_name());
  PackedMatrix m;
  m.n = integer(fields, "n", 1, kMostElements, where);
  m.k = integer(fields, "k", 1, kMostElements, where);
  require(m.n <= kMostElements / m.k, where, "n times k: too many elements");
  m.arithmetic = named<cpu::Arithmetic>(kArithmetic, fields, "arithmetic", where);
  m.bits = static_cast<int>(integer(fields, "bits", 1, 16, where));
  m.block = integer(fields, "block", 16, cpu::kMaxSpan, where);
  m.scale = named<cpu::ScaleType>(kScale, fields, "scale", where);
  m.offset = named<cpu::OffsetType>(kOffset, fields, "offset", where);
  const auto bias = fields.find("bias"), lookup = fields.find("lookup");
  require(bias != fields.end() && bias->is_number(), where, "bias: expected a number");
  m.bias = bias->get<float>();
  require(lookup != fields.end() && lookup->is_boolean(), where, "lookup: expected true or false");
  m.lookup = lookup->get<bool>();

  const bool int8 = m.arithmetic == cpu::Arithmetic::int8;
  require(m.bits <= 8 || m.bits == 16, where, "bits: expected 1 to 8, or 16");
  require(m.bits < 16 || (!int8 && m.scale == cpu::ScaleType::none), where,
          "bits: 16 are for weights without scales outside int8");
  require(m.block == 16 || m.block % cpu::kChunk == 0, where, "block: expected 16 or a multiple of 32");
  require(m.scale != cpu::ScaleType::none || (m.offset == cpu::OffsetType::none && m.block != 16), where,
          "scale: is missing beside an offset or blocks of 16");
  require(!m.lookup || (int8 && m.bits == 4), where, "lookup: is for codes of 4 bits in int8");
  return m;
}

std::unique_ptr<PackedFile> PackedFile::open(const std::string& path, const std::function<std::string()>& key) {
  if (!fs::exists(path)) return nullptr;
  std::unique_ptr<PackedFile> packed(new PackedFile);
  packed->file_ = std::make_shared<checkpoint::SafetensorsFile>(path);
  const auto at = packed->file_->metadata().find(kKey);
  if (at == packed->file_->metadata().end()) fail(ErrorCode::bad_input, "{}: has no metadata '{}'", path, kKey);
  const Json about = parse_json(at->second, path);
  const auto found = about.is_object() ? about.find("key") : about.end();
  if (found == about.end() || *found != key()) return nullptr;
  const auto modules = about.find("modules");
  if (modules == about.end() || !modules->is_object())
    fail(ErrorCode::bad_input, "{}: {}.modules: expected an object", path, kKey);
  for (const auto& [name, fields] : modules->items()) packed->modules_.emplace(name, fields);
  return packed;
}

std::optional<ops::PackedWeight> PackedFile::find(const std::string& module, std::int64_t n, std::int64_t k) const {
  const auto at = modules_.find(module);
  if (at == modules_.end()) return std::nullopt;
  const std::string where = fmt::format("{}: '{}'", file_->path(), module);
  ops::PackedWeight weight{.matrix = parse_packed_fields(at->second, where), .pre_scale = {}};
  PackedMatrix& m = weight.matrix;
  require(m.n == n && m.k == k, where, "n, k: not those of the model");
  const auto part = [&](const char* what) -> std::span<const std::byte> {
    const TensorEntry* entry = file_->find(module + what);
    if (!entry) fail(ErrorCode::bad_input, "{}: tensor '{}{}' is missing", file_->path(), module, what);
    return file_->view(*entry).bytes;
  };
  const auto copy = [&](const char* what, void* to, std::size_t bytes) {
    const std::span<const std::byte> from = part(what);
    if (from.size() != bytes)
      fail(ErrorCode::bad_input, "{}: tensor '{}{}': expected {} bytes, found {}", file_->path(), module, what, bytes,
           from.size());
    if (bytes) std::memcpy(to, from.data(), bytes);
  };
  // All values, or none.
  const auto floats = [&](const char* what, std::int64_t count) {
    std::vector<float> values(part(what).empty() ? 0 : static_cast<std::size_t>(count));
    copy(what, values.data(), values.size() * sizeof(float));
    return values;
  };
  m.row_scale = floats(".row_scale", m.panels() * cpu::kPanel);
  require(!m.row_scale.empty(), where, "row_scale: is empty");
  m.row_sum = floats(".row_sum", m.panels() * cpu::kPanel);
  weight.pre_scale = floats(".pre_scale", k);
  copy(".bytes", m.bytes.data(), m.bytes.size());
  copy(".words", m.words.data(), m.words.size() * sizeof(m.words[0]));
  const std::span<const std::byte> data = part(".data");
  if (static_cast<std::int64_t>(data.size()) != m.data_bytes() || reinterpret_cast<std::uintptr_t>(data.data()) % 64)
    fail(ErrorCode::bad_input, "{}: tensor '{}.data': expected {} bytes at a multiple of 64, found {}", file_->path(),
         module, m.data_bytes(), data.size());
  m.data = {reinterpret_cast<const std::uint8_t*>(data.data()), data.size(), file_};
  return weight;
}

std::uint64_t write_packed(const std::string& path, const std::string& key,
                           std::span<const std::pair<std::string, const ops::Linear*>> linears) {
  Json modules = Json::object();
  std::vector<Part> parts, small;
  for (const auto& [module, linear] : linears) {
    if (!linear->packed()) continue;
    modules[module] = fields_of(*linear->packed());
    parts.push_back(data_part(module, *linear->packed()));
    for (Part& part : small_parts(module, *linear)) small.push_back(std::move(part));
  }
  parts.insert(parts.end(), std::make_move_iterator(small.begin()), std::make_move_iterator(small.end()));
  std::vector<TensorEntry> entries;
  for (const Part& part : parts)
    entries.push_back({.name = part.name,
                       .dtype = part.dtype,
                       .shape = {static_cast<std::int64_t>(part.bytes.size() / byte_count(part.dtype, {1}))}});
  OutputFile out(path);
  checkpoint::SafetensorsWriter writer(out.writer(), std::move(entries),
                                       {{kKey, Json({{"key", key}, {"modules", modules}}).dump()}});
  for (const Part& part : parts) writer.append(part.name, part.bytes);
  writer.finish();
  const std::uint64_t bytes = out.writer().size();
  out.commit();
  return bytes;
}

}  // namespace lowp::models
