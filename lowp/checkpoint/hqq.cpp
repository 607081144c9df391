// HQQ's own files, read only: "W_q", "scale", "zero" and the parameters of each layer as small tensors
// (checkpoint-formats 7.3). A value is (code - zero) * scale, with float zeros.
#include <array>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

constexpr std::string_view kHqqCodes = ".W_q";
constexpr const char* kHqqParts[] = {"W_q",
                                     "scale",
                                     "zero",
                                     "nbits",
                                     "group_size",
                                     "shape",
                                     "axis",
                                     "packing",
                                     "view_as_float",
                                     "unpack_view_dtype",
                                     "quant_zero",
                                     "quant_scale",
                                     "channel_wise",
                                     "compute_dtype",
                                     "offload_meta",
                                     "optimize",
                                     "round_zero",
                                     "encoded_state_dict",
                                     "stores_quant_config"};

// How codes share a word: the first of them highest, each from another part of the rows.
struct Packing {
  std::string_view name;
  int width;  // bits of a code in the word
  int codes;  // in a word
  DType word;
};
constexpr Packing kPackings[] = {{"8bit_u8", 8, 1, DType::u8},
                                 {"4bit_u8", 4, 2, DType::u8},
                                 {"3bit_32", 3, 10, DType::i32},
                                 {"2bit_u8", 2, 4, DType::u8},
                                 {"1bit_u8", 1, 8, DType::u8}};

struct Parameters {
  int bits = 0, group = 0;
  std::int64_t m = 0, k = 0;
  const Packing* packing = nullptr;
};

// An integer in a tensor of one element.
std::int64_t integer(const Checkpoint& checkpoint, const std::string& name) {
  constexpr DType kIntegers[] = {DType::i32, DType::i64, DType::u8};
  const StoredTensor* stored = checkpoint.find(name);
  const Shape shape = stored ? Shape(stored->entry.shape.size(), 1) : Shape{};
  const TensorView view = required(checkpoint, name, kIntegers, shape, "HQQ");
  std::int64_t wide = 0;
  std::int32_t narrow = 0;
  if (view.dtype == DType::u8) return view.as<std::uint8_t>()[0];
  if (view.dtype == DType::i64) {
    std::memcpy(&wide, view.bytes.data(), sizeof wide);
    return wide;
  }
  std::memcpy(&narrow, view.bytes.data(), sizeof narrow);
  return narrow;
}

Parameters read_parameters(const Checkpoint& checkpoint, const std::string& module) {
  Parameters p;
  const std::string where = file_of(checkpoint, module + std::string(kHqqCodes)) + ": module " + quote(module);
  const auto get = [&](const char* part) { return integer(checkpoint, module + "." + part); };
  const std::int64_t bits = get("nbits"), group = get("group_size"), axis = get("axis");
  if (bits < 1 || bits > 8 || group < 1 || group > formats::kMaxGroup)
    fail(ErrorCode::bad_input, "{}: {} bits in groups of {}", where, bits, group);
  if (axis != 1) fail(ErrorCode::unsupported, "{}: axis {}: lowp has groups along the input (axis 1)", where, axis);
  if (checkpoint.find(module + ".view_as_float") && get("view_as_float") != 0)
    fail(ErrorCode::unsupported, "{}: view_as_float hides the packed codes in another type", where);
  p.bits = static_cast<int>(bits);
  p.group = static_cast<int>(group);
  std::int64_t shape[2];
  std::memcpy(shape, required(checkpoint, module + ".shape", DType::i64, {2}, "HQQ").bytes.data(), sizeof shape);
  constexpr std::int64_t kLargest = std::int64_t{1} << 31;
  if (shape[0] < 1 || shape[1] < 1 || shape[0] > kLargest || shape[1] > kLargest)
    fail(ErrorCode::bad_input, "{}: shape [{}, {}]", where, shape[0], shape[1]);
  p.m = shape[0];
  p.k = shape[1];
  const TensorView text = required(checkpoint, module + ".packing", DType::u8, {-1}, "HQQ");
  const std::string_view name(reinterpret_cast<const char*>(text.bytes.data()), text.bytes.size());
  for (const Packing& packing : kPackings)
    if (packing.name == name && packing.width >= p.bits) p.packing = &packing;
  if (!p.packing) fail(ErrorCode::unsupported, "{}: packing {} of {} bits", where, quote(name), p.bits);
  return p;
}

// All tensors of a module, checked against its parameters.
struct HqqTensors {
  Parameters parameters;
  TensorView codes, scale, zero;
};

HqqTensors find_hqq_tensors(const Checkpoint& checkpoint, const std::string& module) {
  HqqTensors found;
  found.parameters = read_parameters(checkpoint, module);
  const Parameters& p = found.parameters;
  const std::string words = fmt::format("{} bits in groups of {}", p.bits, p.group);
  const std::int64_t groups = p.m * p.k / p.group;
  found.codes = required(checkpoint, module + std::string(kHqqCodes), p.packing->word,
                         {ceil_div<std::int64_t>(groups, p.packing->codes), p.group}, words);
  found.scale = required(checkpoint, module + ".scale", kHighPrecision, {groups, 1}, words);
  found.zero = required(checkpoint, module + ".zero", found.scale.dtype, {groups, 1}, words);
  return found;
}

class Hqq final : public ReadOnlyDialect {
 public:
  std::string name() const override { return "hqq"; }

  bool recognizes(const Checkpoint& checkpoint) const override { return quant_method(checkpoint) == name(); }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (!tensor.entry.name.ends_with(kHqqCodes)) continue;
      QuantizedModule& module = result.emplace_back();
      module.name = tensor.entry.name.substr(0, tensor.entry.name.size() - kHqqCodes.size());
      const Parameters p = read_parameters(checkpoint, module.name);
      module.recipe = formats::recipe(fmt::format("int{}_g{}_shift-bf16", p.bits, p.group));
      module.m = p.m;
      module.k = p.k;
      if (const std::string wrong = formats::misfit(module.recipe.weight, p.m, p.k); !wrong.empty())
        fail(ErrorCode::unsupported, "{}: module {} [{}, {}]: {}", tensor.file->path(), quote(module.name), p.m, p.k,
             wrong);
      module.input = element_of(find_hqq_tensors(checkpoint, module.name).scale.dtype);
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    const HqqTensors found = find_hqq_tensors(checkpoint, module.name);
    const Packing& packing = *found.parameters.packing;
    QuantizedMatrix weight = begin_matrix(module);
    weight.codes = Tensor(DType::u8, {module.m, module.k});
    const std::int64_t step = found.codes.shape[0] * found.parameters.group, count = module.m * module.k;
    const auto word = [&](std::int64_t i) {
      std::uint32_t value = 0;
      if (packing.word == DType::u8)
        value = found.codes.as<std::uint8_t>()[i];
      else
        std::memcpy(&value, found.codes.bytes.data() + 4 * i, 4);
      return value;
    };
    const std::uint32_t mask = (1u << packing.width) - 1, largest = (1u << found.parameters.bits) - 1;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint32_t code = (word(i % step) >> (packing.width * (packing.codes - 1 - i / step))) & mask;
      if (code > largest)
        fail(ErrorCode::bad_input, "{}: tensor {}: value {} at {} has more than {} bits",
             file_of(checkpoint, module.name + std::string(kHqqCodes)), quote(module.name + std::string(kHqqCodes)),
             code, i, found.parameters.bits);
      weight.codes.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(code);
    }
    const Shape groups = {module.m, module.k / found.parameters.group};
    weight.scale = copy_as_f32(found.scale).reinterpret(DType::f32, groups);
    weight.zero_point = copy_as_f32(found.zero).reinterpret(DType::f32, groups);
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names;
    for (const char* part : kHqqParts)
      if (std::string name = fmt::format("{}.{}", module.name, part); checkpoint.find(name))
        names.push_back(std::move(name));
    return names;
  }
};

}  // namespace

const Dialect& hqq_dialect() {
  static const Hqq dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
