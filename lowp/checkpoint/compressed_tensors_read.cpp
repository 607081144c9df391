#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <tuple>

#include "lowp/base/error.h"
#include "lowp/checkpoint/activation_order.h"
#include "lowp/checkpoint/compressed_tensors.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/quantize.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint::compressed_tensors {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::Recipe;

// --- global scales

float required_divisor(const Checkpoint& checkpoint, const std::string& name) {
  const float value = required_one(checkpoint, name);
  if (!(value > 0) || !is_finite(value) || !is_finite(1.0f / value))
    fail(ErrorCode::bad_input, "{}: tensor {}: expected a positive divisor, found {}", file_of(checkpoint, name),
         quote(name), value);
  return value;
}

// The multiplier of a divisor. Reciprocals in f32 are not one to one: two multipliers may share a divisor. Which one
// was meant is known if it was noted, and for weights that lowp made from 16-bit values: there it is the one that the
// largest of those values leads to, and they are too far apart to mistake one for another.
float multiplier(float divisor, std::optional<float> noted, std::optional<Elem> made_from) {
  if (noted && 1.0f / *noted == divisor) return *noted;
  if (made_from && formats::info(*made_from).bits == 16) {
    const float guess = formats::nvfp4_tensor_scale(formats::round_to(*made_from, 2688.0f / divisor));
    if (1.0f / guess == divisor) return guess;
  }
  return 1.0f / divisor;
}

// What metadata() noted under a key, in all files: shards have the notes of their own modules.
std::map<std::string, std::string> notes(const Checkpoint& checkpoint, const char* key) {
  std::map<std::string, std::string> result;
  std::set<const TensorFile*> seen;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    if (!seen.insert(tensor.file).second) continue;
    const auto& metadata = tensor.file->metadata();
    const auto found = metadata.find(key);
    if (found == metadata.end()) continue;
    const std::string where = tensor.file->path() + ": metadata " + key;
    const Json json = parse_json(found->second, where);
    if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, quote(json.dump()));
    for (const auto& [name, text] : json.items()) {
      if (!text.is_string())
        fail(ErrorCode::bad_input, "{}: {}: expected a string, found {}", where, quote(name), quote(text.dump()));
      result[name] = text.get<std::string>();
    }
  }
  return result;
}

std::map<std::string, float> tensor_scale_notes(const Checkpoint& checkpoint) {
  std::map<std::string, float> result;
  for (const auto& [name, text] : notes(checkpoint, kTensorScalesKey)) {
    std::uint32_t bits = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bits, 16);
    if (error != std::errc() || text.size() != 8 || end != text.data() + 8)
      fail(ErrorCode::bad_input, "{}: metadata {}: {}: expected 8 hex digits, found {}", checkpoint.path(),
           kTensorScalesKey, quote(name), quote(text));
    result[name] = bits_float(bits);
  }
  return result;
}

// --- the tensors of a module

// All checked against the module's recipe.
struct ModuleTensors {
  Storage storage;
  TensorView codes, scale;
  std::optional<TensorView> zero_point;
  float global_scale = 1;  // divisor
};

Storage stored_as(const Checkpoint& checkpoint, const std::string& module, const Args& weights) {
  if (!checkpoint.find(module + ".weight_packed")) return Storage::bytes;
  return weights.is_float ? Storage::stream : Storage::words;
}

// Words that `count` codes take along an axis of a tensor: the older layout only if the tensor is clearly in it.
std::int64_t expected_words(const Checkpoint& checkpoint, const std::string& tensor, std::size_t axis,
                            std::int64_t count, int bits) {
  const StoredTensor* stored = checkpoint.find(tensor);
  const bool is_matrix = stored && stored->entry.shape.size() == 2;
  const std::int64_t dense = dense_words(count, bits), aligned = aligned_words(count, bits);
  return is_matrix && stored->entry.shape[axis] == aligned ? aligned : dense;
}

TensorView find_codes(const Checkpoint& checkpoint, const QuantizedModule& module, Storage storage, int bits) {
  const std::string packed = module.name + ".weight_packed";
  switch (storage) {
    case Storage::words:
      return required(checkpoint, packed, DType::i32,
                      {module.m, expected_words(checkpoint, packed, 1, module.k, bits)});
    case Storage::stream:
      return required(checkpoint, packed, DType::u8, {module.m, module.k * bits / 8});
    case Storage::bytes:
      break;
  }
  return required(checkpoint, module.name + ".weight", dtype_of(module.recipe.weight.element), {module.m, module.k});
}

// One value may be [], [1] or [1, 1], and one for each row [m, 1] or [m].
TensorView find_scale(const Checkpoint& checkpoint, const QuantizedModule& module) {
  const BlockFormat& format = module.recipe.weight;
  const std::string name = module.name + ".weight_scale";
  Shape shape = scale_shape(format, module.m, module.k);
  const Shape full = {format.scale_rows(module.m), format.scale_cols(module.k)};
  if (const StoredTensor* stored = checkpoint.find(name); stored && full[1] == 1) {
    const Shape& found = stored->entry.shape;
    if (found == full || (found.size() < 2 && element_count(found) == full[0])) shape = found;
  }
  if (format.scale == Elem::e8m0) return required(checkpoint, name, std::array{DType::u8, DType::f8_e8m0}, shape);
  if (format.scale == Elem::e4m3) return required(checkpoint, name, DType::f8_e4m3, shape);
  return required(checkpoint, name, kHighPrecision, shape);
}

std::optional<TensorView> find_zero_point(const Checkpoint& checkpoint, const QuantizedModule& module, Storage storage,
                                          const Args& args) {
  const BlockFormat& format = module.recipe.weight;
  const std::string name = module.name + ".weight_zero_point";
  const std::int64_t groups = format.scale_cols(module.k);
  if (!args.symmetric && storage == Storage::words)
    return required(checkpoint, name, DType::i32,
                    {expected_words(checkpoint, name, 0, module.m, args.num_bits), groups});
  if (!args.symmetric) return required(checkpoint, name, DType::i8, {format.scale_rows(module.m), groups});
  if (const StoredTensor* stored = checkpoint.find(name)) {  // old files have them, all zero
    const auto bytes = stored->view().bytes;
    if (std::any_of(bytes.begin(), bytes.end(), [](std::byte b) { return b != std::byte{}; }))
      fail(ErrorCode::bad_input, "{}: tensor {} is not zero, but the weights are declared symmetric",
           stored->file->path(), quote(name));
  }
  return std::nullopt;
}

ModuleTensors locate(const Checkpoint& checkpoint, const QuantizedModule& module) {
  const Args args = scheme_of(module).weights;
  ModuleTensors found;
  found.storage = stored_as(checkpoint, module.name, args);
  found.codes = find_codes(checkpoint, module, found.storage, args.num_bits);
  found.scale = find_scale(checkpoint, module);
  found.zero_point = find_zero_point(checkpoint, module, found.storage, args);
  if (has_global_scale(args)) {
    const std::string name = module.name + ".weight_global_scale";
    found.global_scale = required_divisor(checkpoint, name);
    if (!module.recipe.weight.tensor_scale && found.global_scale != 1)
      fail(ErrorCode::bad_input, "{}: tensor {}: expected 1 for {}, found {}", file_of(checkpoint, name), quote(name),
           module.recipe.name, found.global_scale);
  }
  return found;
}

// Integers that have a byte each must still fit their width.
void check_range(const Tensor& codes, int bits, const Checkpoint& checkpoint, const std::string& name) {
  const int low = -(1 << (bits - 1)), high = (1 << (bits - 1)) - 1;
  const auto* begin = codes.as<std::int8_t>();
  const auto* end = begin + codes.bytes().size();
  const auto* bad = std::find_if(begin, end, [&](std::int8_t code) { return code < low || code > high; });
  if (bad != end)
    fail(ErrorCode::bad_input, "{}: tensor {}: value {} at {} is not in [{}, {}]", file_of(checkpoint, name),
         quote(name), static_cast<int>(*bad), bad - begin, low, high);
}

Tensor decode_codes(const Checkpoint& checkpoint, const QuantizedModule& module, const ModuleTensors& found) {
  const formats::ElementFormat& element = formats::info(module.recipe.weight.element);
  if (found.storage == Storage::words) return unpack_words(found.codes, element.bits, module.k);
  if (found.storage == Storage::stream && !module.recipe.weight.two_codes_a_byte())
    return unpack_bytes(found.codes, element.bits, module.k);
  Tensor codes = copy(found.codes);
  if (!element.is_float()) check_range(codes, element.bits, checkpoint, module.name + ".weight");
  return codes;
}

Tensor decode_zero_point(const Checkpoint& checkpoint, const QuantizedModule& module, const ModuleTensors& found) {
  const int bits = formats::info(module.recipe.weight.element).bits;
  if (found.storage == Storage::words) return unpack_zero_points(*found.zero_point, bits, module.m);
  Tensor zero_point = copy(*found.zero_point);
  check_range(zero_point, bits, checkpoint, module.name + ".weight_zero_point");
  return zero_point;
}

// The order of columns that "weight_g_idx" tells, empty for groups of neighbours.
Tensor find_order(const Checkpoint& checkpoint, const QuantizedModule& module) {
  const std::string name = module.name + ".weight_g_idx";
  if (!checkpoint.find(name)) return {};
  const int group = module.recipe.weight.group_cols;
  const TensorView index = required(checkpoint, name, DType::i32, {module.k}, module.recipe.name);
  return column_order(index, group ? group : static_cast<int>(module.k),
                      file_of(checkpoint, name) + ": tensor " + quote(name));
}

// --- the modules of a checkpoint

// Rows and columns of a weight by its codes, which must be where the format says.
std::pair<std::int64_t, std::int64_t> matrix_shape(const Checkpoint& checkpoint, const std::string& module,
                                                   const Scheme& scheme) {
  const auto shape_of = [&](const char* part, DType type) {
    return required(checkpoint, module + part, type, {-1, -1}).shape;
  };
  const Storage storage =
      scheme.format.empty() ? stored_as(checkpoint, module, scheme.weights) : *storage_of(scheme.format);
  if (storage == Storage::bytes) {
    const Shape shape = shape_of(".weight", scheme.weights.is_float ? DType::f8_e4m3 : DType::i8);
    return {shape[0], shape[1]};
  }
  if (storage == Storage::stream) {
    const Shape shape = shape_of(".weight_packed", DType::u8);
    return {shape[0], shape[1] * 8 / scheme.weights.num_bits};
  }
  const std::string name = module + ".weight_shape";
  const Shape packed = shape_of(".weight_packed", DType::i32);
  std::int64_t shape[2];
  std::memcpy(shape, required(checkpoint, name, DType::i64, {2}).bytes.data(), sizeof shape);
  if (shape[0] != packed[0] || shape[1] < 1 || shape[1] > packed[1] * 32)
    fail(ErrorCode::bad_input, "{}: tensor {} says [{}, {}], but weight_packed is {}", file_of(checkpoint, name),
         quote(name), shape[0], shape[1], to_string(packed));
  return {shape[0], shape[1]};
}

// The noted recipe if it says what config.json says, else the nearest.
Recipe recipe_of(const Checkpoint& checkpoint, const std::string& module, const Scheme& scheme,
                 const std::string* note) {
  if (!note) {
    const StoredTensor* scale = checkpoint.find(module + ".weight_scale");
    const bool is_known = scale && is_high_precision(scale->entry.dtype);
    const auto recipe = nearest_recipe(scheme, is_known ? element_of(scale->entry.dtype) : Elem::f32);
    if (recipe) return *recipe;
    fail(ErrorCode::unsupported, "{}: module {}: lowp has no format for {}", checkpoint.path(), quote(module),
         describe(scheme));
  }
  Recipe recipe;
  try {
    recipe = formats::recipe(*note);
  } catch (const Error& error) {
    fail(ErrorCode::unsupported, "{}: module {}: {}", checkpoint.path(), quote(module), error.what());
  }
  const Spelling noted = spell(recipe);
  if (!noted.refusal.empty() || noted.scheme.weights != scheme.weights || noted.scheme.input != scheme.input)
    fail(ErrorCode::bad_input, "{}: module {}: config.json says {}, the metadata {} says {}", checkpoint.path(),
         quote(module), describe(scheme), kRecipesKey, quote(*note));
  return recipe;
}

std::optional<float> read_activation_scale(const Checkpoint& checkpoint, const QuantizedModule& module,
                                           const Args& input, const std::map<std::string, float>& notes) {
  const bool calibrated = module.recipe.activation->format.calibrated;
  if (!has_global_scale(input))
    return calibrated ? std::optional(required_one(checkpoint, module.name + ".input_scale")) : std::nullopt;
  const std::string name = module.name + ".input_global_scale";
  const float value = required_divisor(checkpoint, name);
  const auto noted = notes.find(name);
  if (calibrated) return multiplier(value, noted == notes.end() ? std::nullopt : std::optional(noted->second), {});
  if (value != 1)
    fail(ErrorCode::bad_input, "{}: tensor {}: expected 1 for {}, found {}", file_of(checkpoint, name), quote(name),
         module.recipe.name, value);
  return std::nullopt;
}

// Names of the modules that have tensors that only quantized ones have, or that a target spells out.
std::set<std::string> candidates(const Checkpoint& checkpoint, const Config& config) {
  std::set<std::string> found;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const std::string& name = tensor.entry.name;
    const auto dot = name.rfind('.');
    if (dot == std::string::npos) continue;
    const std::string module = name.substr(0, dot), part = name.substr(dot + 1);
    const bool narrow = tensor.entry.dtype == DType::f8_e4m3 || tensor.entry.dtype == DType::i8;
    const auto named = [&] {
      return tensor.entry.shape.size() == 2 && config.names().contains(module) && config.find(module);
    };
    if (part == "weight_packed" || part == "weight_scale" || (part == "weight" && (narrow || named())))
      found.insert(module);
  }
  return found;
}

}  // namespace

std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) {
  const Json* json = quantization_config(checkpoint);
  if (!json) fail(ErrorCode::bad_input, "{}: config.json has no quantization_config", checkpoint.path());
  const Config config(*json, checkpoint.path() + ": config.json");
  const std::map<std::string, std::string> recipes = notes(checkpoint, kRecipesKey);
  const std::map<std::string, float> scales = tensor_scale_notes(checkpoint);
  const Elem element = model_element(checkpoint);
  std::vector<QuantizedModule> result;
  for (const std::string& name : candidates(checkpoint, config)) {
    const Scheme* scheme = config.find(name);
    if (!scheme)
      fail(ErrorCode::bad_input, "{}: module {} has quantized tensors, but it {}", checkpoint.path(), quote(name),
           config.why_not(name));
    QuantizedModule module;
    module.name = name;
    std::tie(module.m, module.k) = matrix_shape(checkpoint, name, *scheme);
    const auto note = recipes.find(name);
    module.recipe = recipe_of(checkpoint, name, *scheme, note == recipes.end() ? nullptr : &note->second);
    if (const std::string wrong = formats::misfit(module.recipe.weight, module.m, module.k); !wrong.empty())
      fail(ErrorCode::unsupported, "{}: module {} [{}, {}]: {}", checkpoint.path(), quote(name), module.m, module.k,
           wrong);
    const ModuleTensors found = locate(checkpoint, module);
    module.input = module.recipe.weight.scale_in_input_dtype ? element_of(found.scale.dtype) : element;
    module.reordered = !find_order(checkpoint, module).empty();
    if (scheme->input) module.activation_scale = read_activation_scale(checkpoint, module, *scheme->input, scales);
    result.push_back(std::move(module));
  }
  return result;
}

QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) {
  const ModuleTensors found = locate(checkpoint, module);
  QuantizedMatrix weight = begin_matrix(module);
  weight.codes = decode_codes(checkpoint, module, found);
  if (module.reordered) {
    weight.column_order = find_order(checkpoint, module);
    weight.codes = into_order(weight.codes, weight.column_order);
  }
  const Shape shape = {weight.format.scale_rows(module.m), weight.format.scale_cols(module.k)};
  Tensor scale = weight.format.scale == Elem::f32 ? copy_as_f32(found.scale) : copy(found.scale);
  weight.scale = std::move(scale).reinterpret(dtype_of(weight.format.scale), shape);
  if (found.zero_point) weight.zero_point = decode_zero_point(checkpoint, module, found).reinterpret(DType::i8, shape);
  const bool ours = checkpoint.metadata().contains(kRecipesKey);
  if (weight.format.tensor_scale)
    weight.tensor_scale = multiplier(found.global_scale, {}, ours ? std::optional(module.input) : std::nullopt);
  return weight;
}

}  // namespace lowp::checkpoint::compressed_tensors
