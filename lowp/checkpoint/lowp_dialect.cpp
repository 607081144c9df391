// The dialect "lowp": every format as it is, codes packed densely. Types and shapes follow from the format's row alone,
// so a format added to the table needs no edit here. Schema: docs/CHECKPOINTS.md.
#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/checkpoint/activation_order.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/pack.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

using formats::BlockFormat;
using formats::ZeroPoint;

constexpr int kLowpVersion = 1;
// Where a file without config.json has its quantization_config.
constexpr const char* kConfigKey = "lowp.quantization_config";
constexpr std::string_view kData = ".weight.data";

int bits(const BlockFormat& format) { return formats::info(format.element).bits; }

// Type of parameters that the format keeps in the dtype of the original weight, or in their own.
DType scale_dtype(const BlockFormat& format, formats::Elem input) {
  if (format.scale_in_input_dtype) return dtype_of(input);
  // Bytes of power-of-two scales are U8 in most checkpoints of others; F8_E8M0 is unknown to older readers.
  return format.scale == formats::Elem::e8m0 ? DType::u8 : dtype_of(format.scale);
}

bool is_calibrated(const formats::Recipe& recipe) {
  return recipe.activation && recipe.activation->scope == formats::Scope::calibrated;
}

// Codes of less than a byte as a bit stream for each row; two-codes-a-byte formats are in that form already.
Tensor pack_rows(const Tensor& codes, std::int64_t m, std::int64_t k, int code_bits) {
  const std::int64_t width = formats::packed_bytes(k, code_bits);
  Tensor packed(DType::u8, {m, width});
  parallel_for(m, ceil_div<std::int64_t>(1 << 18, k), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      formats::pack_bits(std::span(codes.as<std::uint8_t>() + row * k, static_cast<std::size_t>(k)), code_bits,
                         std::span(packed.as<std::uint8_t>() + row * width, static_cast<std::size_t>(width)));
  });
  return packed;
}

Tensor unpack_rows(const TensorView& packed, std::int64_t k, formats::Elem element) {
  const std::int64_t m = packed.shape[0], width = packed.shape[1];
  const formats::ElementFormat& format = formats::info(element);
  Tensor codes(dtype_of(element), {m, k});
  for (std::int64_t row = 0; row < m; ++row)
    formats::unpack_bits(std::span(packed.as<std::uint8_t>() + row * width, static_cast<std::size_t>(width)),
                         format.bits, std::span(codes.as<std::uint8_t>() + row * k, static_cast<std::size_t>(k)));
  if (!format.is_float() && format.is_signed) {
    const int sign = 1 << (format.bits - 1);
    auto* values = codes.as<std::int8_t>();
    for (std::int64_t i = 0; i < m * k; ++i) values[i] = static_cast<std::int8_t>((values[i] ^ sign) - sign);
  }
  return codes;
}

// quantization_config as read.
struct Declared {
  std::string where;
  std::string recipe, dtype;  // of modules that have no entry below; may be ""
  std::map<std::string, std::string> recipes, dtypes;
};

std::string text_field(const Json& config, const char* key, const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (!found->is_string())
    fail(ErrorCode::bad_input, "{}: {}: expected a string, found {}", where, key, quote(found->dump()));
  return found->get<std::string>();
}

std::map<std::string, std::string> map_field(const Json& config, const char* key, const std::string& where) {
  std::map<std::string, std::string> result;
  const auto found = config.find(key);
  if (found == config.end()) return result;
  if (!found->is_object())
    fail(ErrorCode::bad_input, "{}: {}: expected an object, found {}", where, key, quote(found->dump()));
  for (const auto& [module, value] : found->items()) {
    if (!value.is_string())
      fail(ErrorCode::bad_input, "{}: {}: {}: expected a string, found {}", where, key, quote(module),
           quote(value.dump()));
    result.emplace(module, value.get<std::string>());
  }
  return result;
}

Declared parse(const Json& config, const std::string& where) {
  if (!config.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, quote(config.dump()));
  const auto version = config.find("version");
  if (version == config.end() || !version->is_number_integer())
    fail(ErrorCode::bad_input, "{}: expected an integer 'version'", where);
  if (*version != kLowpVersion)
    fail(ErrorCode::unsupported, "{}: version {} of the lowp dialect; this build reads version {}", where,
         version->dump(), kLowpVersion);
  return {where, text_field(config, "default", where), text_field(config, "dtype", where),
          map_field(config, "modules", where), map_field(config, "dtypes", where)};
}

Declared declared(const Checkpoint& checkpoint) {
  if (quant_method(checkpoint) == "lowp")
    return parse(*quantization_config(checkpoint), checkpoint.path() + ": config.json: quantization_config");
  const std::string where = checkpoint.path() + ": metadata " + kConfigKey;
  const auto note = checkpoint.metadata().find(kConfigKey);
  if (note == checkpoint.metadata().end()) fail(ErrorCode::bad_input, "{} is missing", where);
  return parse(parse_json(note->second, where), where);
}

class LowpDialect final : public Dialect {
 public:
  std::string name() const override { return "lowp"; }

  std::string refusal(const formats::Recipe&) const override { return ""; }

  std::string obstacle(const QuantizedModule&) const override { return ""; }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    const BlockFormat& format = module.recipe.weight;
    LOWP_CHECK(format.has_scale() && bits(format) <= 8, "{} is not a format of weights", format.name);
    const DType codes = bits(format) == 8 ? dtype_of(format.element) : DType::u8;
    const Shape groups = {format.scale_rows(module.m), format.scale_cols(module.k)};
    std::vector<TensorEntry> entries;
    const auto add = [&](std::string_view field, DType type, Shape shape) {
      entries.push_back({module.name + std::string(field), type, std::move(shape)});
    };
    add(kData, codes, {module.m, formats::packed_bytes(module.k, bits(format))});
    add(".weight.shape", DType::i64, {2});  // a row of packed codes does not tell k
    add(".weight.scale", scale_dtype(format, module.input), groups);
    if (format.zero_point == ZeroPoint::integer) add(".weight.zero_point", DType::i8, groups);
    if (format.zero_point == ZeroPoint::floating) add(".weight.zero_point", scale_dtype(format, module.input), groups);
    if (format.tensor_scale) add(".weight.tensor_scale", DType::f32, {1});
    if (format.rule == formats::Rule::codebook) add(".weight.codebook", DType::f32, {std::int64_t{1} << bits(format)});
    if (module.reordered) add(".weight.column_order", DType::i32, {module.k});
    if (module.pre_scaled) add(".pre_scale", DType::f32, {module.k});
    if (is_calibrated(module.recipe)) add(".activation_scale", DType::f32, {1});
    return entries;
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    const BlockFormat& format = module.recipe.weight;
    LOWP_CHECK(weight.m == module.m && weight.k == module.k && weight.format.name == format.name, "{}: {} [{}, {}]",
               module.name, weight.format.name, weight.m, weight.k);
    std::vector<Tensor> tensors;
    for (const TensorEntry& entry : layout(module)) {
      const std::string field = entry.name.substr(module.name.size());
      Tensor& tensor = tensors.emplace_back();
      if (field == kData) {
        const bool as_is = bits(format) == 8 || format.two_codes_a_byte();
        tensor = as_is ? copy(weight.codes.view()) : pack_rows(weight.codes, weight.m, weight.k, bits(format));
      } else if (field == ".weight.shape") {
        tensor = Tensor(entry.dtype, entry.shape);
        tensor.as<std::int64_t>()[0] = weight.m;
        tensor.as<std::int64_t>()[1] = weight.k;
      } else if (field == ".weight.scale" || field == ".weight.zero_point") {
        const Tensor& values = field == ".weight.scale" ? weight.scale : weight.zero_point;
        tensor = is_high_precision(entry.dtype) ? copy_rounded(values, entry.dtype) : copy(values.view());
      } else if (field == ".weight.tensor_scale") {
        tensor = one_f32(weight.tensor_scale);
      } else if (field == ".weight.codebook") {
        tensor = copy(weight.codebook.view());
      } else if (field == ".weight.column_order") {
        tensor = copy(weight.column_order.view());
      } else if (field == ".pre_scale") {
        tensor = copy(weight.pre_scale.view());
      } else {
        LOWP_CHECK(module.activation_scale, "{} has no activation scale", module.name);
        tensor = one_f32(*module.activation_scale);
      }
      tensor = std::move(tensor).reinterpret(entry.dtype, entry.shape);
    }
    return tensors;
  }

  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    const auto recipe = [](const QuantizedModule& module) { return module.recipe.name; };
    const auto dtype = [](const QuantizedModule& module) { return std::string(formats::name(module.input)); };
    Json config = {{"quant_method", "lowp"}, {"version", kLowpVersion}};
    const auto add = [&](const char* all, const char* exceptions, const auto& value) {
      const std::string common = most_common(modules, value);
      config[all] = common;
      Json others = Json::object();
      for (const QuantizedModule& module : modules)
        if (value(module) != common) others[module.name] = value(module);
      if (!others.empty()) config[exceptions] = std::move(others);
    };
    add("default", "modules", recipe);
    add("dtype", "dtypes", dtype);
    config["kept"] = Json::array();
    for (const std::string& name : kept) config["kept"].push_back(name);
    return config;
  }

  std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules,
                                              std::span<const std::string>) const override {
    return {{kConfigKey, config(modules, {}).dump()}};
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    const std::string method = quant_method(checkpoint);
    return method == "lowp" || (method.empty() && checkpoint.metadata().contains(kConfigKey));
  }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const Declared config = declared(checkpoint);
    std::vector<QuantizedModule> modules;
    std::set<std::string> names, tensors;
    for (const StoredTensor& stored : checkpoint.tensors()) {
      if (!stored.entry.name.ends_with(kData)) continue;
      const std::string name = stored.entry.name.substr(0, stored.entry.name.size() - kData.size());
      names.insert(name);
      modules.push_back(module(checkpoint, config, name));
      for (const TensorEntry& entry : layout(modules.back())) tensors.insert(entry.name);
    }
    for (const auto& [name, recipe] : config.recipes)
      if (!names.contains(name))
        fail(ErrorCode::bad_input, "{}: module {} has recipe {}, but there is no tensor {}", config.where, quote(name),
             quote(recipe), quote(name + std::string(kData)));
    for (const StoredTensor& stored : checkpoint.tensors()) reject_stray(stored, names, tensors, config);
    return modules;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    QuantizedMatrix matrix = begin_matrix(module);
    const BlockFormat& format = matrix.format;
    for (const TensorEntry& entry : layout(module)) {
      const TensorView view = required(checkpoint, entry.name, entry.dtype, entry.shape, module.recipe.name);
      const std::string field = entry.name.substr(module.name.size());
      if (field == kData) {
        const bool as_is = bits(format) == 8 || format.two_codes_a_byte();
        matrix.codes = as_is ? copy(view) : unpack_rows(view, module.k, format.element);
      } else if (field == ".weight.scale") {
        matrix.scale = is_high_precision(view.dtype) ? copy_as_f32(view)
                                                     : copy(view).reinterpret(dtype_of(format.scale), view.shape);
      } else if (field == ".weight.zero_point") {
        matrix.zero_point = is_high_precision(view.dtype) ? copy_as_f32(view) : copy(view);
      } else if (field == ".weight.tensor_scale") {
        matrix.tensor_scale = load_one(view, 0);
      } else if (field == ".weight.codebook") {
        matrix.codebook = copy(view);
      } else if (field == ".weight.column_order") {
        matrix.column_order = copy(view);
        check_order(matrix.column_order, format.group_cols,
                    file_of(checkpoint, entry.name) + ": tensor " + quote(entry.name));
      } else if (field == ".pre_scale") {
        matrix.pre_scale = copy(view);
      }
    }
    return matrix;
  }

 private:
  // One module, its tensors checked against its recipe.
  QuantizedModule module(const Checkpoint& checkpoint, const Declared& config, const std::string& name) const {
    const auto pick = [&](const auto& exceptions, const std::string& common, const char* what) {
      const auto found = exceptions.find(name);
      const std::string& value = found == exceptions.end() ? common : found->second;
      if (value.empty()) fail(ErrorCode::bad_input, "{}: module {} has no {}", config.where, quote(name), what);
      return value;
    };
    QuantizedModule module;
    module.name = name;
    const std::string recipe = pick(config.recipes, config.recipe, "recipe");
    try {
      module.recipe = formats::recipe(recipe);
    } catch (const Error& error) {  // the file was written by a lowp that knows more, or is wrong
      fail(ErrorCode::unsupported, "{}: module {}: {}", config.where, quote(name), error.what());
    }
    if (module.recipe.keeps())
      fail(ErrorCode::bad_input, "{}: module {} is quantized, but its recipe is {}", config.where, quote(name), recipe);
    const std::string dtype = pick(config.dtypes, config.dtype, "dtype");
    const auto element = formats::find_element(dtype);
    if (!element || !is_high_precision(dtype_of(*element)))
      fail(ErrorCode::bad_input, "{}: module {}: expected dtype bf16, f16 or f32, found {}", config.where, quote(name),
           quote(dtype));
    module.input = *element;
    read_shape(checkpoint, module);
    module.reordered = checkpoint.find(name + ".weight.column_order") != nullptr;
    module.pre_scaled = checkpoint.find(name + ".pre_scale") != nullptr;
    for (const TensorEntry& entry : layout(module))
      required(checkpoint, entry.name, entry.dtype, entry.shape, module.recipe.name);
    if (is_calibrated(module.recipe)) module.activation_scale = required_one(checkpoint, name + ".activation_scale");
    return module;
  }

  static void read_shape(const Checkpoint& checkpoint, QuantizedModule& module) {
    const std::string tensor = module.name + ".weight.shape";
    std::int64_t shape[2];
    std::memcpy(shape, required(checkpoint, tensor, DType::i64, {2}).bytes.data(), sizeof shape);
    const Shape data = checkpoint.find(module.name + std::string(kData))->entry.shape;
    const std::string where = file_of(checkpoint, tensor) + ": tensor " + quote(tensor);
    // The file has the bytes of data, so its dimensions are sane, and k cannot exceed eight codes a byte by much.
    if (data.size() != 2 || data[0] <= 0 || data[1] <= 0 || shape[0] != data[0] || shape[1] <= 0 ||
        shape[1] / 8 > data[1])
      fail(ErrorCode::bad_input, "{}: shape [{}, {}] does not fit the codes, which are {}", where, shape[0], shape[1],
           to_string(data));
    module.m = shape[0];
    module.k = shape[1];
    if (const std::string wrong = formats::misfit(module.recipe.weight, module.m, module.k); !wrong.empty())
      fail(ErrorCode::bad_input, "{}: {}", where, wrong);
  }

  // A parameter that the recipe does not have: tensors and recipe disagree about the format.
  static void reject_stray(const StoredTensor& stored, const std::set<std::string>& modules,
                           const std::set<std::string>& tensors, const Declared& config) {
    const std::string& name = stored.entry.name;
    const auto at = name.rfind(".weight.");
    if (at == std::string::npos || tensors.contains(name) || !modules.contains(name.substr(0, at))) return;
    const std::string module = name.substr(0, at);
    const auto found = config.recipes.find(module);
    fail(ErrorCode::bad_input, "{}: tensor {} does not belong to recipe {} of its module", stored.file->path(),
         quote(name), found == config.recipes.end() ? config.recipe : found->second);
  }
};

}  // namespace

const Dialect& lowp_dialect() {
  static const LowpDialect dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
