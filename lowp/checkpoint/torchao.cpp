// The dialect "torchao": tensor subclasses flattened into safetensors, described in "__metadata__", as torchao's own
// flatten_tensor_state_dict() does it.
#include "lowp/checkpoint/torchao.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/pack.h"
#include "lowp/formats/recipes.h"
#include "lowp/formats/scale_layout.h"

namespace lowp::checkpoint {
namespace {

using formats::BlockFormat;
using torchao::Described;
using torchao::Subclass;

constexpr const char* kNames = "tensor_names";
constexpr std::string_view kQdata = "._weight_qdata";

// tinygemm's codes are 0..15; Int4Tensor has the same values with 8 taken off, as two's complement nibbles.
constexpr std::uint8_t kFlip = 0x88;

Tensor pack_int4(const Tensor& codes) {
  const std::int64_t m = codes.shape()[0], k = codes.shape()[1];
  Tensor packed(DType::i8, {m, k / 2});
  const std::span out(packed.as<std::uint8_t>(), packed.bytes().size());
  formats::pack_bits(std::span(codes.as<std::uint8_t>(), codes.bytes().size()), 4, out);  // k is even
  for (std::uint8_t& byte : out) byte ^= kFlip;
  return packed;
}

Tensor unpack_int4(const TensorView& packed, const BlockFormat& format) {
  std::vector<std::uint8_t> bytes(packed.bytes.size());
  std::memcpy(bytes.data(), packed.bytes.data(), bytes.size());
  const bool is_signed = formats::info(format.element).is_signed;
  if (!is_signed)
    for (std::uint8_t& byte : bytes) byte ^= kFlip;
  Tensor codes(dtype_of(format.element), {packed.shape[0], packed.shape[1] * 2});
  const std::span out(codes.as<std::uint8_t>(), codes.bytes().size());
  formats::unpack_bits(bytes, 4, out);
  if (is_signed)
    for (std::uint8_t& code : out) code = static_cast<std::uint8_t>((code ^ 8) - 8);
  return codes;
}

Tensor transposed(const Tensor& values) {
  Tensor result(DType::f32, {values.shape()[1], values.shape()[0]});
  lowp::transpose(values.bytes().data(), values.shape()[0], values.shape()[1], 4, result.bytes().data());
  return result;
}

// One-byte scales [rows, cols] from tiles of 128 x 4.
Tensor untile(const TensorView& tiled, std::int64_t rows, std::int64_t cols) {
  Tensor scale(tiled.dtype, {rows, cols});
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c)
      scale.bytes()[static_cast<std::size_t>(r * cols + c)] =
          tiled.bytes[static_cast<std::size_t>(formats::tiled_offset(r, c, cols))];
  return scale;
}

// Codes kept one a byte where the element has fewer bits: a byte beyond them is not a code.
void check_codes(const TensorView& codes, const BlockFormat& format, const std::string& where) {
  const formats::ElementFormat& element = formats::info(format.element);
  const int low = element.is_signed && !element.is_float() ? -(1 << (element.bits - 1)) : 0;
  const int high = low + (1 << element.bits) - 1;
  for (std::size_t i = 0; i < codes.bytes.size(); ++i) {
    const int value = low < 0 ? static_cast<std::int8_t>(codes.bytes[i]) : static_cast<int>(codes.bytes[i]);
    if (value < low || value > high)
      fail(ErrorCode::bad_input, "{}: value {} of element {} is not in the range [{}, {}] of {}", where, value, i, low,
           high, element.name);
  }
}

// The tensors of a described module, checked against it.
struct Parts {
  TensorView codes, scale;
  std::optional<TensorView> zero_point;
};

Parts parts(const Checkpoint& checkpoint, const Described& described) {
  const QuantizedModule& module = described.module;
  const BlockFormat& format = module.recipe.weight;
  const std::string scheme = fmt::format("{} {}", name(described.subclass), module.recipe.name);
  const auto get = [&](const char* field, std::span<const DType> types, const Shape& shape) {
    return required(checkpoint, torchao::tensor_name(module.name, field), types, shape, scheme);
  };
  const auto one = [&](const char* field, DType type, const Shape& shape) { return get(field, {&type, 1}, shape); };
  const Shape full = {module.m, module.k}, halved = {module.m, module.k / 2};
  const Shape groups = {format.scale_rows(module.m), format.scale_cols(module.k)};
  // Tiles of 512 bytes for 128 x 4 scales, in torchao's shape.
  const Shape scale = described.tiled_scales ? Shape{ceil_div<std::int64_t>(groups[0], formats::kTileRows) * 32,
                                                     ceil_div<std::int64_t>(groups[1], formats::kTileCols) * 16}
                                             : groups;
  switch (described.subclass) {
    case Subclass::float8:
      if (format.group_rows > 1 && module.m % format.group_rows != 0)
        fail(ErrorCode::bad_input, "{}: {} rows are not a multiple of {}, which torchao's blocks need", module.name,
             module.m, format.group_rows);
      return {one("qdata", DType::f8_e4m3, full), one("scale", DType::f32, groups), std::nullopt};
    case Subclass::int8:
      return {one("qdata", DType::i8, full), get("scale", kHighPrecision, groups), std::nullopt};
    case Subclass::intx:
      return {one("qdata", DType::i8, full), get("scale", kHighPrecision, groups),
              one("zero_point", DType::i8, groups)};
    case Subclass::int4: {
      const Shape transposed = {groups[1], groups[0]};
      return {one("qdata", DType::i8, halved), get("scale", kHighPrecision, transposed),
              get("zero_point", kHighPrecision, transposed)};
    }
    case Subclass::mx: {
      const DType type = dtype_of(format.element);
      return {one("qdata", type, format.two_codes_a_byte() ? halved : full), one("scale", DType::f8_e8m0, scale),
              std::nullopt};
    }
    case Subclass::nvfp4:
      return {one("qdata", DType::u8, halved), one("scale", DType::f8_e4m3, scale), std::nullopt};
  }
  return {};
}

// Whether a noted recipe can be what a description says: the note knows more (HQQ; that all zero points happen to be
// 0), but it must not contradict.
bool agrees(const formats::Recipe& note, const QuantizedModule& found) {
  const BlockFormat &a = note.weight, &b = found.recipe.weight;
  const auto rows = [&](const BlockFormat& f) { return f.group_rows == 0 ? found.m : f.group_rows; };
  const auto cols = [&](const BlockFormat& f) { return f.group_cols == 0 ? found.k : f.group_cols; };
  const auto is_affine = [](const BlockFormat& f) {
    return f.rule == formats::Rule::symmetric || f.rule == formats::Rule::asymmetric;
  };
  const bool same_rule = a.rule == b.rule || (is_affine(a) && is_affine(b));
  const bool same_zero = a.zero_point == b.zero_point || (a.zero_point == formats::ZeroPoint::integer && is_affine(b));
  const std::string word = note.activation ? note.activation->word : "";
  return a.element == b.element && same_rule && same_zero && rows(a) == rows(b) && cols(a) == cols(b) &&
         a.scale == b.scale && a.tensor_scale == b.tensor_scale &&
         word == (found.recipe.activation ? found.recipe.activation->word : "");
}

// The description of a module's weight, from the metadata of any file.
Json description(const Checkpoint& checkpoint, const std::string& module) {
  const std::string key = module + std::string(kWeight);
  const auto found = checkpoint.metadata().find(key);
  if (found == checkpoint.metadata().end())
    fail(ErrorCode::bad_input, "{}: there are tensors of {}, but the metadata does not describe it", checkpoint.path(),
         quote(key));
  return parse_json(found->second, checkpoint.path() + ": metadata " + quote(key));
}

class TorchaoDialect final : public Dialect {
 public:
  std::string name() const override { return "torchao"; }

  std::string refusal(const formats::Recipe& recipe) const override { return torchao::refusal(recipe); }

  std::vector<TensorEntry> layout(const QuantizedModule& module) const override { return torchao::layout(module); }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    LOWP_CHECK(weight.m == module.m && weight.k == module.k && weight.format.name == module.recipe.weight.name,
               "{}: {} [{}, {}]", module.name, weight.format.name, weight.m, weight.k);
    const bool int4 = torchao::subclass_of(module.recipe.weight) == Subclass::int4;
    std::vector<Tensor> tensors;
    for (const TensorEntry& entry : layout(module)) {
      const std::string field = entry.name.substr(torchao::tensor_name(module.name, "").size());
      Tensor& tensor = tensors.emplace_back();
      if (field == "qdata") {
        tensor = int4 ? pack_int4(weight.codes) : copy(weight.codes.view());
      } else if (field == "scale") {
        tensor = int4 ? transposed(weight.scale) : copy(weight.scale.view());
        if (is_high_precision(entry.dtype)) tensor = copy_rounded(tensor, entry.dtype);
      } else if (field == "zero_point") {
        tensor = weight.zero_point.empty() ? Tensor(entry.dtype, entry.shape)
                 : int4                    ? copy_rounded(transposed(weight.zero_point), entry.dtype)
                                           : copy(weight.zero_point.view());
      } else if (field == "per_tensor_scale") {
        tensor = one_f32(weight.tensor_scale);
      } else {
        LOWP_CHECK(module.activation_scale, "{} has no activation scale", module.name);
        tensor = one_f32(*module.activation_scale);
      }
      tensor = std::move(tensor).reinterpret(entry.dtype, entry.shape);
    }
    return tensors;
  }

  Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const override {
    LOWP_CHECK(!modules.empty(), "a torchao config needs a quantized module");
    std::map<std::string, std::size_t> counts;  // of recipes
    for (const QuantizedModule& module : modules) ++counts[module.recipe.name];
    const auto common = std::max_element(modules.begin(), modules.end(), [&](const auto& a, const auto& b) {
      return counts[a.recipe.name] < counts[b.recipe.name];
    });
    Json quant_type = torchao::config(common->recipe);
    if (counts.size() > 1) {
      Json by_name = {{"_default", std::move(quant_type)}};
      for (const QuantizedModule& module : modules)
        if (module.recipe.name != common->recipe.name) by_name[module.name] = torchao::config(module.recipe);
      quant_type = {{"_type", "FqnToConfig"}, {"_version", 1}, {"_data", {{"fqn_to_config", std::move(by_name)}}}};
    }
    Json config = {{"quant_method", "torchao"}, {"quant_type", {{"default", std::move(quant_type)}}}};
    // A list even if it is empty: transformers takes null for "lm_head, as usual".
    config["modules_to_not_convert"] = Json::array();
    for (const std::string& name : kept) config["modules_to_not_convert"].push_back(name);
    config["include_input_output_embeddings"] = false;
    config["untie_embedding_weights"] = false;
    return config;
  }

  std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules,
                                              std::span<const std::string> plain) const override {
    std::map<std::string, std::string> metadata;
    Json names = Json::array();
    for (const QuantizedModule& module : modules) {
      const std::string weight = module.name + std::string(kWeight);
      metadata[weight] = torchao::describe(module).dump();
      names.push_back(weight);
    }
    for (const std::string& name : plain) {
      if (name.find('.') == std::string::npos) continue;  // torchao splits names at a dot and fails without one
      metadata[name] = R"({"_type": "Tensor"})";
      names.push_back(name);
    }
    metadata[kNames] = names.dump();
    metadata[kRecipesKey] = recipe_note(modules);
    return metadata;
  }

  bool recognizes(const Checkpoint& checkpoint) const override {
    const std::string method = quant_method(checkpoint);
    if (!method.empty()) return method == "torchao";
    return checkpoint.metadata().contains(kNames) &&
           std::any_of(checkpoint.tensors().begin(), checkpoint.tensors().end(),
                       [](const StoredTensor& stored) { return stored.entry.name.ends_with(kQdata); });
  }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    const std::map<std::string, std::string> notes = recipe_notes(checkpoint);
    std::vector<QuantizedModule> modules;
    std::set<std::string> seen;
    for (const StoredTensor& stored : checkpoint.tensors()) {
      if (!stored.entry.name.ends_with(kQdata)) continue;
      const std::string name = stored.entry.name.substr(0, stored.entry.name.size() - kQdata.size());
      const Described described = read(checkpoint, name, notes);
      parts(checkpoint, described);
      modules.push_back(described.module);
      seen.insert(name + std::string(kWeight));
    }
    reject_unread(checkpoint, seen);
    if (modules.empty())
      fail(ErrorCode::unsupported,
           "{}: quant_method is torchao, but no tensor is in torchao's safetensors layout (older torchao pickled "
           "weights)",
           checkpoint.path());
    return modules;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    Described described = torchao::read(checkpoint, module.name, description(checkpoint, module.name));
    described.module.recipe = module.recipe;
    const Parts stored = parts(checkpoint, described);
    const std::string codes = torchao::tensor_name(module.name, "qdata");
    const std::string where = file_of(checkpoint, codes) + ": tensor " + quote(codes);
    QuantizedMatrix matrix = begin_matrix(module);
    const BlockFormat& format = matrix.format;
    const bool int4 = described.subclass == Subclass::int4;
    if (formats::info(format.element).bits < 8 && !format.two_codes_a_byte() && !int4)
      check_codes(stored.codes, format, where);
    matrix.codes = int4 ? unpack_int4(stored.codes, format) : copy(stored.codes);
    if (is_high_precision(stored.scale.dtype)) {
      matrix.scale = int4 ? transposed(copy_as_f32(stored.scale)) : copy_as_f32(stored.scale);
    } else {
      matrix.scale = described.tiled_scales
                         ? untile(stored.scale, format.scale_rows(module.m), format.scale_cols(module.k))
                         : copy(stored.scale);
    }
    if (format.zero_point == formats::ZeroPoint::integer) matrix.zero_point = copy(*stored.zero_point);
    if (format.zero_point == formats::ZeroPoint::floating)
      matrix.zero_point = transposed(copy_as_f32(*stored.zero_point));
    if (format.tensor_scale)
      matrix.tensor_scale = required_one(checkpoint, torchao::tensor_name(module.name, "per_tensor_scale"));
    return matrix;
  }

 private:
  // What the description says, with the recipe that we noted if there is a note.
  static Described read(const Checkpoint& checkpoint, const std::string& name,
                        const std::map<std::string, std::string>& notes) {
    Described described = torchao::read(checkpoint, name, description(checkpoint, name));
    const auto note = notes.find(name);
    if (note == notes.end()) return described;
    const std::string where = fmt::format("{}: metadata {}: module {}", checkpoint.path(), kRecipesKey, quote(name));
    formats::Recipe recipe;
    try {
      recipe = formats::recipe(note->second);
    } catch (const Error& error) {
      fail(ErrorCode::unsupported, "{}: {}", where, error.what());
    }
    if (!agrees(recipe, described.module))
      fail(ErrorCode::bad_input, "{}: the note says {}, but the {} beside it is {} [{}, {}]", where, recipe.name,
           torchao::name(described.subclass), described.module.recipe.name, described.module.m, described.module.k);
    described.module.recipe = recipe;
    return described;
  }

  // Descriptions of subclasses that no tensor led to: of other parameters than weights, of classes with other tensors,
  // or of tensors that are missing. A single file of several describes the others' tensors too, so there nothing is
  // missing.
  static void reject_unread(const Checkpoint& checkpoint, const std::set<std::string>& seen) {
    for (const auto& [key, text] : checkpoint.metadata()) {
      if (seen.contains(key) || text.find("\"_tensor_data_names\"") == std::string::npos) continue;
      const Json json = parse_json(text, checkpoint.path() + ": metadata " + quote(key));
      const auto type = json.is_object() ? json.find("_type") : json.end();
      if (!json.is_object() || type == json.end() || !type->is_string()) continue;
      const std::string word = type->get<std::string>();
      if (!torchao::find_subclass(word))
        fail(ErrorCode::unsupported, "{}: {} is torchao's {}, which lowp does not read", checkpoint.path(), quote(key),
             quote(word));
      if (!key.ends_with(kWeight))
        fail(ErrorCode::unsupported, "{}: {} is quantized; lowp reads quantized weights of Linears only",
             checkpoint.path(), quote(key));
      const std::string codes = key.substr(0, key.size() - kWeight.size()) + std::string(kQdata);
      if (checkpoint.is_folder())
        fail(ErrorCode::bad_input, "{}: the metadata describes {} as {}, but there is no tensor {}", checkpoint.path(),
             quote(key), word, quote(codes));
    }
  }
};

}  // namespace

const Dialect& torchao_dialect() {
  static const TorchaoDialect dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
