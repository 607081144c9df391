#include "lowp/checkpoint/dialect_support.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/checkpoint/config_fields.h"

namespace lowp::checkpoint {
namespace {

bool fits(const Shape& found, const Shape& expected) {
  return found.size() == expected.size() && std::equal(found.begin(), found.end(), expected.begin(),
                                                       [](auto size, auto want) { return want < 0 || size == want; });
}

// "[?, 64]"
std::string pattern(const Shape& expected) {
  std::string text;
  for (const std::int64_t size : expected) text += (text.empty() ? "" : ", ") + (size < 0 ? "?" : std::to_string(size));
  return "[" + text + "]";
}

// "BF16 or F32"
std::string names(std::span<const DType> types) {
  std::string text;
  for (const DType type : types) text += (text.empty() ? "" : " or ") + std::string(name(type));
  return text;
}

const Json* find_object(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_object() ? &*found : nullptr;
}

}  // namespace

TensorView required(const Checkpoint& checkpoint, const std::string& name, std::span<const DType> allowed,
                    const Shape& expected, const std::string& scheme) {
  const StoredTensor* stored = checkpoint.find(name);
  const std::string reason = scheme.empty() ? "" : " of " + scheme;
  if (!stored)
    fail(ErrorCode::bad_input, "{}: tensor {} is missing: expected {} {}{}", checkpoint.path(), quote(name),
         names(allowed), pattern(expected), reason);
  const TensorEntry& entry = stored->entry;
  if (std::find(allowed.begin(), allowed.end(), entry.dtype) == allowed.end() || !fits(entry.shape, expected))
    fail(ErrorCode::bad_input, "{}: tensor {}: expected {} {}{}, found {} {}", stored->file->path(), quote(name),
         names(allowed), pattern(expected), reason, lowp::name(entry.dtype), to_string(entry.shape));
  return stored->view();
}

TensorView required(const Checkpoint& checkpoint, const std::string& name, DType allowed, const Shape& expected,
                    const std::string& scheme) {
  return required(checkpoint, name, std::span(&allowed, 1), expected, scheme);
}

float required_one(const Checkpoint& checkpoint, const std::string& name) {
  // The rank is the file's own, so that a missing or longer tensor is the only thing left to complain about.
  const StoredTensor* stored = checkpoint.find(name);
  return load_one(required(checkpoint, name, kHighPrecision, stored ? Shape(stored->entry.shape.size(), 1) : Shape{1}),
                  0);
}

std::string file_of(const Checkpoint& checkpoint, const std::string& tensor) {
  const StoredTensor* stored = checkpoint.find(tensor);
  return stored ? stored->file->path() : checkpoint.path();
}

Tensor copy(const TensorView& view) {
  Tensor result(view.dtype, view.shape);
  if (!view.bytes.empty()) std::memcpy(result.bytes().data(), view.bytes.data(), view.bytes.size());
  return result;
}

Tensor copy_as_f32(const TensorView& view) {
  Tensor result(DType::f32, view.shape);
  load_f32(view, 0, element_count(view.shape), result.as<float>());
  return result;
}

Tensor copy_rounded(const Tensor& values, DType type) {
  LOWP_CHECK(values.dtype() == DType::f32 && is_high_precision(type), "{} to {}", name(values.dtype()), name(type));
  Tensor result(type, values.shape());
  store_rounded(result, 0, std::span(values.as<float>(), static_cast<std::size_t>(element_count(values.shape()))));
  return result;
}

Tensor one_f32(float value, Shape shape) {
  Tensor result(DType::f32, std::move(shape));
  LOWP_CHECK(element_count(result.shape()) == 1, "shape {}", to_string(result.shape()));
  *result.as<float>() = value;
  return result;
}

DType dtype_of(formats::Elem element) {
  const formats::ElementFormat& format = formats::info(element);
  if (!format.is_float()) return format.is_signed ? DType::i8 : DType::u8;
  if (format.bits >= 8)
    for (std::size_t i = 0; i < kDTypes.size(); ++i)
      if (kDTypes[i].element == element) return static_cast<DType>(i);
  return DType::u8;
}

formats::Elem model_element(const Checkpoint& checkpoint) {
  if (!checkpoint.config()) return formats::Elem::bf16;
  const Json& config = *checkpoint.config();
  const auto text = config.find("text_config");
  for (const Json* place : {&config, text != config.end() && text->is_object() ? &*text : nullptr})
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (!place || !place->contains(key) || !(*place)[key].is_string()) continue;
      const auto& name = (*place)[key].get_ref<const std::string&>();
      if (name.ends_with("float32")) return formats::Elem::f32;
      if (name.ends_with("bfloat16")) return formats::Elem::bf16;
      if (name.ends_with("float16")) return formats::Elem::f16;
    }
  return formats::Elem::bf16;
}

std::map<std::string, std::string> recipe_notes(const Checkpoint& checkpoint) {
  const auto found = checkpoint.metadata().find(kRecipesKey);
  if (found == checkpoint.metadata().end()) return {};
  const std::string where = checkpoint.path() + ": metadata " + kRecipesKey;
  const Json notes = parse_json(found->second, where);
  if (!notes.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, quote(notes.dump()));
  std::map<std::string, std::string> result;
  for (const auto& [module, recipe] : notes.items()) {
    if (!recipe.is_string())
      fail(ErrorCode::bad_input, "{}: module {}: expected the name of a recipe, found {}", where, quote(module),
           quote(recipe.dump()));
    result.emplace(module, recipe.get<std::string>());
  }
  return result;
}

std::string recipe_note(std::span<const QuantizedModule> modules) {
  std::map<std::string, const QuantizedModule*> sorted;  // the same note in whatever order a dialect lists modules
  for (const QuantizedModule& module : modules) sorted.emplace(module.name, &module);
  std::string text;  // written by hand because adding a key to a Json object is linear in their number
  for (const auto& [name, module] : sorted)
    text += (text.empty() ? "" : ",") + Json(name).dump() + ":" + Json(module->recipe.name).dump();
  return "{" + text + "}";
}

const Json* quantization_config(const Checkpoint& checkpoint) {
  if (!checkpoint.config()) return nullptr;
  const Json& config = *checkpoint.config();
  const Json* text = find_object(config, "text_config");
  for (const Json* place : {&config, text})
    for (const char* key : {"quantization_config", "compression_config"})
      if (const Json* found = place ? find_object(*place, key) : nullptr) return found;
  return nullptr;
}

bool has_side_file(const Checkpoint& checkpoint, const std::string& name) {
  std::error_code ignored;
  return checkpoint.is_folder() && std::filesystem::exists(std::filesystem::path(checkpoint.path()) / name, ignored);
}

Json side_file(const Checkpoint& checkpoint, const std::string& name) {
  const std::string path = (std::filesystem::path(checkpoint.path()) / name).string();
  Json json = read_json(path);
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", path, quote(json.dump()));
  return json;
}

void erase_quantization_config(Json& config) {
  const auto erase = [](Json& place) {
    // "quantization" is MLX's word.
    for (const char* key : {"quantization_config", "compression_config", "quantization"}) place.erase(key);
  };
  erase(config);
  if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) erase(*text);
}

std::string quant_method(const Checkpoint& checkpoint) {
  const Json* config = quantization_config(checkpoint);
  if (!config) return "";
  const auto method = config->find("quant_method");
  return method != config->end() && method->is_string() ? method->get<std::string>() : "";
}

bool is_auto_round(const Checkpoint& checkpoint, std::string_view packing) {
  const std::string method = quant_method(checkpoint);
  if (method != "auto-round" && method != "intel/auto-round") return false;
  return text_or(*quantization_config(checkpoint), "packing_format", "", checkpoint.path()).ends_with(packing);
}

QuantizedMatrix begin_matrix(const QuantizedModule& module) {
  QuantizedMatrix matrix;
  matrix.format = module.recipe.weight;
  matrix.m = module.m;
  matrix.k = module.k;
  matrix.input = module.input;
  return matrix;
}

}  // namespace lowp::checkpoint
