// torchao -> recipe: what a description and its tensors say. The description is foreign JSON, so every access is
// checked.
#include <algorithm>
#include <array>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/torchao.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint::torchao {
namespace {

using formats::BlockSpec;
using formats::Elem;

constexpr std::pair<std::string_view, Elem> kTorchNames[] = {
    {"float32", Elem::f32},      {"float16", Elem::f16},   {"bfloat16", Elem::bf16}, {"float8_e4m3fn", Elem::e4m3},
    {"float8_e5m2", Elem::e5m2}, {"fp6_e2m3", Elem::e2m3}, {"fp6_e3m2", Elem::e3m2}, {"float4_e2m1fn_x2", Elem::e2m1},
};

// A JSON object with the place it stands in, for messages.
class Attributes {
 public:
  Attributes(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json_.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where_, quote(json_.dump()));
  }

  const std::string& where() const { return where_; }
  bool has(const char* key) const {
    const auto found = json_.find(key);
    return found != json_.end() && !found->is_null();
  }
  const Json& at(const char* key) const {
    if (!has(key)) fail(ErrorCode::bad_input, "{}: attribute {} is missing", where_, key);
    return *json_.find(key);
  }
  bool flag(const char* key) const {
    if (has(key) && !at(key).is_boolean()) wrong(key, "true or false");
    return has(key) && at(key).get<bool>();
  }
  /// A word, bare or as {"_type": ..., "_data": word}.
  std::string word(const char* key) const {
    const Json& value = at(key);
    const auto data = value.is_object() ? value.find("_data") : value.end();
    const Json& text = value.is_object() && data != value.end() ? *data : value;
    if (!text.is_string()) wrong(key, "a word");
    return text.get<std::string>();
  }
  Elem element(const char* key) const {
    const std::string text = word(key);
    for (const auto& [name, element] : kTorchNames)
      if (name == text) return element;
    const auto integer = formats::find_element(text);  // "int4"
    if (!integer || formats::info(*integer).is_float())
      fail(ErrorCode::unsupported, "{}: lowp has no {} {}", where_, key, quote(text));
    return *integer;
  }
  std::int64_t integer(const char* key) const {
    if (!at(key).is_number_integer()) wrong(key, "an integer");
    return at(key).get<std::int64_t>();
  }
  std::array<std::int64_t, 2> pair(const char* key) const {
    const Json& value = at(key);
    const auto is_integer = [](const Json& item) { return item.is_number_integer(); };
    if (!value.is_array() || value.size() != 2 || !std::all_of(value.begin(), value.end(), is_integer))
      wrong(key, "two integers");
    return {value[0].get<std::int64_t>(), value[1].get<std::int64_t>()};
  }
  /// The attributes of an object {"_type": ..., "_data": {...}}, and the type itself.
  Attributes inner(const char* key) const {
    const Json& value = at(key);
    const auto data = value.is_object() ? value.find("_data") : value.end();
    if (!value.is_object() || data == value.end()) wrong(key, "an object with _data");
    return {*data, where_ + ": " + key};
  }
  std::string type(const char* key) const {
    const Json& value = at(key);
    const auto found = value.is_object() ? value.find("_type") : value.end();
    if (!value.is_object() || found == value.end() || !found->is_string()) wrong(key, "an object with _type");
    return found->get<std::string>();
  }

 private:
  [[noreturn]] void wrong(const char* key, const char* expected) const {
    fail(ErrorCode::bad_input, "{}: attribute {}: expected {}, found {}", where_, key, expected, quote(at(key).dump()));
  }

  const Json& json_;
  std::string where_;
};

[[noreturn]] void unsupported(const Attributes& attributes, const std::string& what) {
  fail(ErrorCode::unsupported, "{}: lowp has no format for {}", attributes.where(), what);
}

// The name of the weight format with this row, e.g. MX of an element.
std::string format_name(const Attributes& attributes, formats::Rule rule, Elem element, std::int64_t group) {
  for (const formats::BlockRow& row : formats::block_rows())
    if (row.spec.rule == rule && row.spec.element == element && row.spec.group_cols == group)
      return std::string(row.pattern);
  unsupported(attributes, fmt::format("{} with a scale for {} values", formats::name(element), group));
}

// "_g32" or "_channel": a group that is the whole row is a scale for a channel.
std::string group_suffix(std::int64_t group, std::int64_t k) {
  return group == k ? "_channel" : fmt::format("_g{}", group);
}

bool all_zero(const TensorView& view) {
  return std::all_of(view.bytes.begin(), view.bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

// A description in the course of being read.
struct ModuleReader {
  const Checkpoint& checkpoint;
  const Attributes& data;
  std::int64_t m, k;
  std::string tensor;  // "<module>._weight_"

  bool stored(const char* field) const { return checkpoint.find(tensor + field) != nullptr; }
};

// The name of a recipe, "<weight>-<activation>".
struct Words {
  std::string weight, activation = "bf16";
  Elem input = Elem::bf16;
};

Words read_float8(const ModuleReader& in) {
  Words words{.weight = "", .input = in.data.element("dtype")};
  const auto [rows, cols] = in.data.pair("block_size");
  if (rows == 1 && cols == in.k)
    words.weight = "fp8";
  else if (rows == in.m && cols == in.k)
    words.weight = "fp8_tensor";
  else if (rows == 128 && cols == 128)
    words.weight = "fp8_block128";
  else
    unsupported(in.data, fmt::format("fp8 in blocks of [{}, {}]", rows, cols));
  if (!in.data.has("act_quant_kwargs")) return words;
  const Attributes activation = in.data.inner("act_quant_kwargs");
  if (activation.element("float8_dtype") != Elem::e4m3 || activation.has("hp_value_lb") ||
      activation.has("hp_value_ub"))
    unsupported(activation, "fp8 activations other than e4m3 without bounds");
  const std::string granularity = activation.type("granularity");
  if (granularity != "PerRow" && granularity != "PerTensor") unsupported(activation, "fp8 activations " + granularity);
  words.activation = granularity == "PerRow" ? "fp8" : "fp8_tensor";
  return words;
}

Words read_int8(const ModuleReader& in) {
  Words words{.weight = "", .input = in.data.element("dtype")};
  const auto [rows, cols] = in.data.pair("block_size");
  if (rows == 1 && cols == in.k)
    words.weight = "int8";
  else if (rows == in.m && cols == in.k)
    words.weight = "int8_tensor";
  else if (rows == 1 && cols == 32)
    words.weight = "int8_g32";
  else
    unsupported(in.data, fmt::format("int8 with f32 scales in blocks of [{}, {}]", rows, cols));
  if (in.stored("act_pre_scale")) unsupported(in.data, "activations that are scaled first (act_pre_scale)");
  if (in.stored("zero_point") && !all_zero(in.checkpoint.find(in.tensor + "zero_point")->view()))
    unsupported(in.data, "int8 weights with f32 scales and zero points");
  if (!in.data.has("act_quant_kwargs")) return words;
  const Attributes activation = in.data.inner("act_quant_kwargs");
  const std::string granularity = activation.type("granularity"), mapping = activation.word("mapping_type");
  const bool is_static = in.stored("act_quant_scale");
  const bool row = granularity == "PerRow", tensor = granularity == "PerTensor", symmetric = mapping == "SYMMETRIC";
  if (activation.flag("reduce_range")) unsupported(activation, "int8 activations of reduced range");
  if (row && symmetric && !is_static)
    words.activation = "int8";
  else if (row && mapping == "ASYMMETRIC" && !is_static)
    words.activation = "int8_asym";
  else if (tensor && symmetric)
    words.activation = is_static ? "int8_static" : "int8_tensor";
  else
    unsupported(activation,
                fmt::format("{} int8 activations {} {}", is_static ? "static" : "dynamic", mapping, granularity));
  return words;
}

Words read_intx(const ModuleReader& in) {
  const Elem element = in.data.element("target_dtype");
  Words words{.weight = "", .input = in.data.element("dtype")};
  const auto [rows, cols] = in.data.pair("block_size");
  if (formats::info(element).is_float() || !formats::info(element).is_signed || rows != 1 || cols < 1)
    unsupported(in.data, fmt::format("{} in blocks of [{}, {}]", formats::name(element), rows, cols));
  const Shape groups = {in.m, in.k / cols};
  const TensorView zero_point = required(in.checkpoint, in.tensor + "zero_point", DType::i8, groups, in.data.where());
  // The class has zero points always; that all are zero is what symmetric means.
  words.weight = std::string(formats::name(element)) + group_suffix(cols, in.k) + (all_zero(zero_point) ? "" : "_asym");
  if (!in.data.has("activation_quantization")) return words;
  if (const std::string word = in.data.word("activation_quantization"); word != "int8_asym_per_token")
    unsupported(in.data, "activations " + word);
  words.activation = "int8_asym";
  return words;
}

Words read_int4(const ModuleReader& in) {
  const std::string scale = in.tensor + "scale";
  const TensorView view = required(in.checkpoint, scale, kHighPrecision, {-1, in.m}, in.data.where());
  Words words{.weight = "", .input = element_of(view.dtype)};
  const auto [rows, cols] = in.data.pair("block_size");
  if (const auto shape = in.data.pair("shape"); shape[0] != in.m || shape[1] != in.k)
    fail(ErrorCode::bad_input, "{}: shape is [{}, {}], but the codes are of [{}, {}]", in.data.where(), shape[0],
         shape[1], in.m, in.k);
  if (rows != 1 || cols < 1) unsupported(in.data, fmt::format("int4 in blocks of [{}, {}]", rows, cols));
  if (in.stored("act_pre_scale")) unsupported(in.data, "activations that are scaled first (act_pre_scale)");
  words.weight = fmt::format("int4_g{}_float", cols);
  if (!in.data.has("activation_dtype") || in.data.element("activation_dtype") != Elem::e4m3) return words;
  const auto zero_point = in.checkpoint.find(in.tensor + "zero_point");
  if (cols != 128 || !zero_point || !all_zero(zero_point->view()))
    unsupported(in.data, fmt::format("int4 in groups of {} with zero points and fp8 activations", cols));
  words.weight = "int4_g128_sym8";
  words.activation = "fp8";
  return words;
}

Words read_mx(const ModuleReader& in) {
  const std::int64_t group = in.data.integer("block_size");
  Words words{.weight = format_name(in.data, formats::Rule::mx, in.data.element("elem_dtype"), group),
              .input = in.data.element("orig_dtype")};
  if (!in.data.has("act_quant_kwargs")) return words;
  const Attributes activation = in.data.inner("act_quant_kwargs");
  words.activation =
      format_name(activation, formats::Rule::mx, activation.element("elem_dtype"), activation.integer("block_size"));
  return words;
}

Words read_nvfp4(const ModuleReader& in) {
  const bool two_level = in.stored("per_tensor_scale");
  Words words{.weight = two_level ? "nvfp4" : "nvfp4_single", .input = in.data.element("orig_dtype")};
  if (in.data.integer("block_size") != 16)
    unsupported(in.data, fmt::format("NVFP4 with a scale for {} values", in.data.integer("block_size")));
  if (!in.data.has("act_quant_kwargs")) return words;
  const Attributes activation = in.data.inner("act_quant_kwargs");
  const bool dynamic = activation.flag("use_dynamic_per_tensor_scale"), is_static = in.stored("act_per_tensor_scale");
  words.activation = dynamic ? "nvfp4_tensor" : is_static ? "nvfp4_static" : "nvfp4_single";
  return words;
}

Words read_words(Subclass subclass, const ModuleReader& in) {
  switch (subclass) {
    case Subclass::float8:
      return read_float8(in);
    case Subclass::int8:
      return read_int8(in);
    case Subclass::intx:
      return read_intx(in);
    case Subclass::int4:
      return read_int4(in);
    case Subclass::mx:
      return read_mx(in);
    case Subclass::nvfp4:
      return read_nvfp4(in);
  }
  return {};
}

constexpr DType kCodeTypes[] = {DType::f8_e4m3, DType::f8_e5m2, DType::u8, DType::i8};

}  // namespace

Described read(const Checkpoint& checkpoint, const std::string& module, const Json& description) {
  const std::string codes = tensor_name(module, "qdata");
  const std::string where = file_of(checkpoint, codes) + ": description of " + quote(module + ".weight");
  const Attributes outer(description, where);
  const auto subclass = find_subclass(outer.word("_type"));
  if (!subclass) fail(ErrorCode::unsupported, "{}: lowp does not read torchao's {}", where, quote(outer.word("_type")));
  const Attributes data(outer.at("_data"), where + " as " + std::string(name(*subclass)));
  const bool halved = *subclass == Subclass::int4 || *subclass == Subclass::nvfp4 ||
                      (*subclass == Subclass::mx && data.element("elem_dtype") == Elem::e2m1);
  const TensorView qdata = required(checkpoint, codes, kCodeTypes, {-1, -1}, data.where());
  if (qdata.bytes.empty())  // and no dimension is so large that products of them overflow
    fail(ErrorCode::bad_input, "{}: the codes are empty: {}", data.where(), to_string(qdata.shape));

  Described found;
  found.subclass = *subclass;
  found.module.name = module;
  found.module.m = qdata.shape[0];
  found.module.k = qdata.shape[1] * (halved ? 2 : 1);
  const Words words =
      read_words(*subclass, {checkpoint, data, found.module.m, found.module.k, tensor_name(module, "")});
  found.module.input = words.input;
  if (!is_high_precision(dtype_of(words.input)))
    fail(ErrorCode::bad_input, "{}: expected dtype float16, bfloat16 or float32, found {}", data.where(),
         formats::name(words.input));
  try {
    found.module.recipe = formats::recipe(words.weight + "-" + words.activation);
  } catch (const Error&) {
    unsupported(data, fmt::format("{} weights with {} activations", words.weight, words.activation));
  }
  if (const std::string wrong = formats::misfit(found.module.recipe.weight, found.module.m, found.module.k);
      !wrong.empty())
    fail(ErrorCode::bad_input, "{}: {}", data.where(), wrong);
  found.tiled_scales = data.flag("is_swizzled_scales");
  if (words.activation == "int8_static")
    found.module.activation_scale = required_one(checkpoint, tensor_name(module, "act_quant_scale"));
  if (words.activation == "nvfp4_static")
    found.module.activation_scale = required_one(checkpoint, tensor_name(module, "act_per_tensor_scale"));
  return found;
}

}  // namespace lowp::checkpoint::torchao
