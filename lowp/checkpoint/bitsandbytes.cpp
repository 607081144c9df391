// bitsandbytes' 4-bit weights (QLoRA), read only: codes of a table of 16 values in the file, one scale for a block of
// them along the flattened weight, itself perhaps in 8 bits (checkpoint-formats 7.4).
#include <array>
#include <cstring>
#include <limits>

#include "lowp/base/error.h"
#include "lowp/checkpoint/config_fields.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

constexpr std::string_view kState = ".weight.quant_state.bitsandbytes__";
constexpr std::string_view kBitsandbytesParts[] = {".weight", ".weight.absmax", ".weight.quant_map",
                                                   ".weight.nested_absmax", ".weight.nested_quant_map"};

// The JSON text in a "quant_state" tensor.
struct State {
  std::string where;
  formats::Recipe recipe;
  std::int64_t m = 0, k = 0;
  int nested_block = 0;  // scales that share a scale; 0: scales are in f32
  float nested_offset = 0;
  formats::Elem input = formats::Elem::bf16;
};

State read_state(const StoredTensor& tensor) {
  State state;
  state.where = tensor.file->path() + ": tensor " + quote(tensor.entry.name);
  const std::span<const std::byte> bytes = tensor.view().bytes;
  const Json json = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, state.where);
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object", state.where);
  const int block = int_or(json, "blocksize", 64, state.where);
  if (block < 1) wrong(state.where, "blocksize", "a positive number", json["blocksize"]);
  state.recipe = formats::recipe(fmt::format("codebook4_g{}-bf16", block));
  const auto is_size = [](const Json& item) {
    return item.is_number_integer() && item > 0 && item <= std::numeric_limits<std::int32_t>::max();
  };
  const Json* shape = value_of(json, "shape");
  if (!shape || !shape->is_array() || shape->size() != 2 || !is_size((*shape)[0]) || !is_size((*shape)[1]))
    wrong(state.where, "shape", "[rows, columns]", shape ? *shape : Json());
  state.m = (*shape)[0].get<std::int64_t>();
  state.k = (*shape)[1].get<std::int64_t>();
  if (const std::string wrong = formats::misfit(state.recipe.weight, state.m, state.k); !wrong.empty())
    fail(ErrorCode::unsupported, "{}: shape [{}, {}]: {}", state.where, state.m, state.k, wrong);
  const std::string dtype = text_or(json, "dtype", "bfloat16", state.where);
  state.input = dtype == "float16" ? formats::Elem::f16 : dtype == "float32" ? formats::Elem::f32 : formats::Elem::bf16;
  state.nested_block = int_or(json, "nested_blocksize", 0, state.where);
  if (const Json* offset = value_of(json, "nested_offset")) {
    if (!offset->is_number()) wrong(state.where, "nested_offset", "a number", *offset);
    state.nested_offset = offset->get<float>();
  }
  return state;
}

const StoredTensor* find_state(const Checkpoint& checkpoint, const std::string& module) {
  for (const char* type : {"nf4", "fp4"})
    if (const StoredTensor* found = checkpoint.find(module + std::string(kState) + type)) return found;
  return nullptr;
}

// All tensors of a module, checked.
struct BitsandbytesTensors {
  State state;
  TensorView codes, absmax, table;
  std::optional<TensorView> nested_absmax, nested_table;
};

BitsandbytesTensors find_bitsandbytes_tensors(const Checkpoint& checkpoint, const std::string& module) {
  BitsandbytesTensors found;
  found.state = read_state(*find_state(checkpoint, module));
  const std::int64_t count = found.state.m * found.state.k;
  const std::int64_t groups = count / found.state.recipe.weight.group_cols;
  const auto get = [&](std::string_view part, std::span<const DType> types, Shape shape) {
    return required(checkpoint, module + std::string(part), types, shape, found.state.recipe.name);
  };
  found.codes = get(kBitsandbytesParts[0], std::array{DType::u8}, {count / 2, 1});
  found.absmax = get(kBitsandbytesParts[1], std::array{found.state.nested_block ? DType::u8 : DType::f32}, {groups});
  found.table = get(kBitsandbytesParts[2], std::array{DType::f32}, {16});
  if (found.state.nested_block > 0) {
    found.nested_absmax =
        get(kBitsandbytesParts[3], std::array{DType::f32}, {ceil_div<std::int64_t>(groups, found.state.nested_block)});
    found.nested_table = get(kBitsandbytesParts[4], std::array{DType::f32}, {256});
  }
  return found;
}

class BitsAndBytes final : public ReadOnlyDialect {
 public:
  std::string name() const override { return "bitsandbytes"; }

  bool recognizes(const Checkpoint& checkpoint) const override { return quant_method(checkpoint) == name(); }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (tensor.entry.name.ends_with(".SCB"))
        fail(ErrorCode::unsupported, "{}: tensor {}: 8-bit weights of bitsandbytes are not read, 4-bit ones are",
             tensor.file->path(), quote(tensor.entry.name));
      const auto at = tensor.entry.name.find(kState);
      if (at == std::string::npos) continue;
      const std::string module = tensor.entry.name.substr(0, at);
      if (find_state(checkpoint, module) != &tensor)
        fail(ErrorCode::unsupported, "{}: tensor {}: expected one quant_state, of type nf4 or fp4", tensor.file->path(),
             quote(tensor.entry.name));
      const State state = find_bitsandbytes_tensors(checkpoint, module).state;
      result.push_back({module, state.recipe, state.m, state.k, state.input, std::nullopt});
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    const BitsandbytesTensors found = find_bitsandbytes_tensors(checkpoint, module.name);
    QuantizedMatrix weight = begin_matrix(module);
    weight.codebook = copy(found.table);
    weight.codes = Tensor(DType::u8, {module.m, module.k});
    const auto* bytes = found.codes.as<std::uint8_t>();
    for (std::int64_t i = 0; i < module.m * module.k; i += 2) {  // the high nibble comes first
      weight.codes.as<std::uint8_t>()[i] = bytes[i / 2] >> 4;
      weight.codes.as<std::uint8_t>()[i + 1] = bytes[i / 2] & 0xF;
    }
    const Shape groups = {module.m, weight.format.scale_cols(module.k)};
    weight.scale = Tensor(DType::f32, groups);
    if (!found.nested_absmax) {
      std::memcpy(weight.scale.bytes().data(), found.absmax.bytes.data(), found.absmax.bytes.size());
      return weight;
    }
    const Tensor outer = copy(*found.nested_absmax), table = copy(*found.nested_table);  // of any alignment in the file
    for (std::int64_t i = 0; i < element_count(groups); ++i)
      weight.scale.as<float>()[i] =
          table.as<float>()[found.absmax.as<std::uint8_t>()[i]] * outer.as<float>()[i / found.state.nested_block] +
          found.state.nested_offset;
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    std::vector<std::string> names = {find_state(checkpoint, module.name)->entry.name};
    for (const std::string_view part : kBitsandbytesParts)
      if (std::string name = module.name + std::string(part); checkpoint.find(name)) names.push_back(std::move(name));
    return names;
  }
};

}  // namespace

const Dialect& bitsandbytes_dialect() {
  static const BitsAndBytes dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
