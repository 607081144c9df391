// "quantization_config" of compressed-tensors: JSON <-> schemes, and which module a scheme is for.
#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "lowp/base/error.h"
#include "lowp/checkpoint/compressed_tensors_schema.h"
#include "lowp/checkpoint/config_fields.h"

namespace lowp::checkpoint::compressed_tensors {
namespace {

// Names of the enumerators, in their order.
constexpr std::array<std::string_view, 6> kStrategies = {"tensor",       "channel", "group",
                                                         "tensor_group", "block",   "token"};
constexpr std::array<std::string_view, 3> kScaleTypes = {"", "torch.uint8", "torch.float8_e4m3fn"};

constexpr std::array<std::string_view, 12> kArgsKeys = {
    "num_bits", "type",     "symmetric",   "group_size", "strategy", "block_structure",
    "dynamic",  "actorder", "scale_dtype", "zp_dtype",   "observer", "observer_kwargs"};
constexpr std::array<std::string_view, 5> kSchemeKeys = {"targets", "weights", "input_activations",
                                                         "output_activations", "format"};

Strategy parse_strategy(const Json& json, const Args& args, const std::string& where) {
  const std::string text = text_or(json, "strategy", "", where);
  if (text.empty())
    return args.group_size > 0 ? Strategy::group : args.group_size == -1 ? Strategy::channel : Strategy::tensor;
  const auto found = std::find(kStrategies.begin(), kStrategies.end(), text);
  if (found == kStrategies.end())
    fail(ErrorCode::unsupported, "{}: strategy {} is not one that lowp reads ({})", where, quote(text),
         fmt::join(kStrategies, ", "));
  return static_cast<Strategy>(found - kStrategies.begin());
}

// [rows, columns]; old files have a string, "128x128".
void parse_block(const Json& json, Args& args, const std::string& where) {
  const Json* block = value_of(json, "block_structure");
  if ((block != nullptr) != (args.strategy == Strategy::block))
    fail(ErrorCode::bad_input, "{}: block_structure goes with strategy \"block\", and only with it", where);
  if (!block) return;
  const auto is_size = [](const Json& item) {
    return item.is_number_integer() && item > 0 && item <= formats::kMaxGroup;
  };
  const Json sizes = *block == "128x128" ? Json{128, 128} : *block;
  if (!sizes.is_array() || sizes.size() != 2 || !std::all_of(sizes.begin(), sizes.end(), is_size))
    wrong(where, "block_structure", "[rows, columns]", *block);
  args.block_rows = sizes[0].get<int>();
  args.group_size = sizes[1].get<int>();
}

Dynamic parse_dynamic(const Json& json, const std::string& where) {
  const Json* value = value_of(json, "dynamic");
  if (!value) return Dynamic::no;
  if (value->is_boolean()) return value->get<bool>() ? Dynamic::yes : Dynamic::no;
  if (!value->is_string() || *value != "local") wrong(where, "dynamic", "true, false or \"local\"", *value);
  return Dynamic::local;
}

// Older files leave scale_dtype out where the format implies it. A floating type is what the tensor says anyway.
ScaleType parse_scale(const Json& json, const Args& args, const std::string& format, const std::string& where) {
  const std::string text = text_or(json, "scale_dtype", "", where);
  const bool mx_group = args.is_float && args.strategy == Strategy::group && args.group_size == 32;
  if (text.empty()) {
    if (args.is_float && args.num_bits == 4 && args.strategy == Strategy::tensor_group) return ScaleType::e4m3;
    if (mx_group && (args.num_bits < 8 || format == "mxfp8-quantized")) return ScaleType::e8m0;
  }
  if (text == "torch.float32" || text == "torch.bfloat16" || text == "torch.float16") return ScaleType::floating;
  const auto found = std::find(kScaleTypes.begin(), kScaleTypes.end(), text);
  if (found == kScaleTypes.end())
    fail(ErrorCode::unsupported, "{}: scale_dtype {} is not one that lowp reads", where, quote(text));
  return static_cast<ScaleType>(found - kScaleTypes.begin());
}

Args parse_args(const Json& json, const std::string& format, const std::string& where) {
  check_keys(json, kArgsKeys, where);
  Args args;
  args.num_bits = int_or(json, "num_bits", 8, where);
  if (args.num_bits < 1) wrong(where, "num_bits", "a positive number", json["num_bits"]);
  const std::string type = text_or(json, "type", "int", where);
  if (type != "int" && type != "float") wrong(where, "type", "\"int\" or \"float\"", json["type"]);
  args.is_float = type == "float";
  args.symmetric = bool_or(json, "symmetric", true, where);
  args.group_size = int_or(json, "group_size", 0, where);
  args.strategy = parse_strategy(json, args, where);
  const bool grouped = args.strategy == Strategy::group || args.strategy == Strategy::tensor_group;
  if (grouped != (args.group_size > 0))
    fail(ErrorCode::bad_input, "{}: strategy \"{}\" with group_size {}", where,
         kStrategies[static_cast<std::size_t>(args.strategy)], args.group_size);
  args.group_size = std::max(args.group_size, 0);
  parse_block(json, args, where);
  args.dynamic = parse_dynamic(json, where);
  args.scale = parse_scale(json, args, format, where);
  return args;
}

// "weight" (also called "static") only changes how the values were found; "group" ("dynamic") puts columns into groups
// by importance. Old files have true and false.
bool parse_order(const Json& weights, const std::string& where) {
  const Json* order = value_of(weights, "actorder");
  if (!order || *order == "weight" || *order == "static" || *order == false) return false;
  if (*order != "group" && *order != "dynamic" && *order != true)
    wrong(where, "actorder", "\"group\" or \"weight\"", *order);
  return true;
}

Scheme parse_scheme(const Json& json, const std::string& model_format, const std::string& where) {
  if (json.is_array())
    fail(ErrorCode::unsupported, "{}: names of presets are not read, only schemes that are spelled out", where);
  check_keys(json, kSchemeKeys, where);
  Scheme scheme;
  scheme.format = text_or(json, "format", model_format == "mixed-precision" ? "" : model_format, where);
  if (!scheme.format.empty() && !storage_of(scheme.format))
    fail(ErrorCode::unsupported, "{}: format {} is not one that lowp reads", where, quote(scheme.format));
  const Json* weights = value_of(json, "weights");
  if (!weights) fail(ErrorCode::unsupported, "{}: quantizes activations only", where);
  scheme.weights = parse_args(*weights, scheme.format, where + ".weights");
  if (scheme.weights.dynamic != Dynamic::no)
    fail(ErrorCode::bad_input, "{}: weights cannot be dynamic: their scales are in the file", where);
  scheme.reordered = parse_order(*weights, where + ".weights");
  if (const Json* input = value_of(json, "input_activations"))
    scheme.input = parse_args(*input, scheme.format, where + ".input_activations");
  if (value_of(json, "output_activations"))
    fail(ErrorCode::unsupported, "{}: quantized outputs (output_activations) are not supported", where);
  return scheme;
}

Json args_to_json(const Args& args) {
  Json json = {{"num_bits", args.num_bits},
               {"type", args.is_float ? "float" : "int"},
               {"symmetric", args.symmetric},
               {"strategy", kStrategies[static_cast<std::size_t>(args.strategy)]}};
  if (args.strategy == Strategy::block)
    json["block_structure"] = {args.block_rows, args.group_size};
  else
    json["group_size"] = args.group_size ? Json(args.group_size) : Json();
  json["dynamic"] = args.dynamic == Dynamic::local ? Json("local") : Json(args.dynamic == Dynamic::yes);
  if (args.scale != ScaleType::floating) json["scale_dtype"] = kScaleTypes[static_cast<std::size_t>(args.scale)];
  return json;
}

// Python's re.match on foreign text: a bad expression is the file's fault, not the caller's.
NamePattern regex(const std::string& text, const std::string& where) {
  try {
    return NamePattern(text, where, NamePattern::Anchor::left);
  } catch (const Error& error) {
    throw Error(ErrorCode::bad_input, error.what());
  }
}

// Without the model's code a module's class is a guess: embeddings are told by their name, everything else that is
// quantized is a Linear.
std::string class_of(const std::string& module) {
  const std::string last = module.substr(module.rfind('.') + 1);
  return last.starts_with("embed") || last == "wte" ? "Embedding" : "Linear";
}

std::string describe(const Args& args) {
  std::string text = fmt::format("{}-bit {} by {}", args.num_bits, args.is_float ? "float" : "int",
                                 kStrategies[static_cast<std::size_t>(args.strategy)]);
  if (args.strategy == Strategy::block)
    text += fmt::format(" of {}x{}", args.block_rows, args.group_size);
  else if (args.group_size)
    text += fmt::format(" of {}", args.group_size);
  if (!args.symmetric) text = "asymmetric " + text;
  if (args.scale != ScaleType::floating)
    text += fmt::format(" with {} scales", kScaleTypes[static_cast<std::size_t>(args.scale)].substr(6));
  return text;
}

}  // namespace

std::string describe(const Scheme& scheme) {
  std::string text = "weights: " + describe(scheme.weights);
  if (!scheme.input) return text + ", input: as it is";
  constexpr std::string_view kWhen[] = {"static", "dynamic", "locally dynamic"};
  return fmt::format("{}, input: {} {}", text, kWhen[static_cast<std::size_t>(scheme.input->dynamic)],
                     describe(*scheme.input));
}

Json to_json(const Scheme& scheme, const std::vector<std::string>& targets) {
  Json weights = args_to_json(scheme.weights);
  if (scheme.reordered) weights["actorder"] = "group";
  return {{"targets", targets},
          {"weights", std::move(weights)},
          {"input_activations", scheme.input ? args_to_json(*scheme.input) : Json()},
          {"output_activations", nullptr},
          {"format", scheme.format}};
}

Config::Config(const Json& json, std::string where) {
  where += ": quantization_config";
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object", where);
  // "dense" there only notes that zeros were counted.
  if (const Json* sparsity = value_of(json, "sparsity_config");
      !is_empty(sparsity) && text_or(*sparsity, "format", "", where) != "dense")
    fail(ErrorCode::unsupported, "{}: sparse weights (sparsity_config) are not supported", where);
  if (const Json* transform = value_of(json, "transform_config");
      !is_empty(transform) && !is_empty(value_of(*transform, "config_groups")))
    fail(ErrorCode::unsupported, "{}: rotations (transform_config) are not supported", where);
  const std::string format = text_or(json, "format", "", where);
  if (const Json* groups = value_of(json, "config_groups")) {
    if (!groups->is_object()) wrong(where, "config_groups", "an object", *groups);
    for (const auto& [name, group] : groups->items()) {
      const std::string here = where + ".config_groups." + name;
      schemes_.push_back(parse_scheme(group, format, here));
      for (const std::string& target : strings(group, "targets", here)) {
        if (target.starts_with("re:"))
          patterns_.emplace_back(regex(target, here), schemes_.size() - 1);
        else
          names_[target] = schemes_.size() - 1;
      }
    }
  }
  std::stable_sort(patterns_.begin(), patterns_.end(),
                   [](const auto& a, const auto& b) { return a.first.text() < b.first.text(); });
  for (const std::string& name : strings(json, "ignore", where)) {
    if (name.starts_with("re:"))
      ignored_patterns_.push_back(regex(name, where));
    else
      ignored_names_.push_back(name);
  }
  std::sort(ignored_names_.begin(), ignored_names_.end());
}

bool Config::ignores(const std::string& module) const {
  return std::binary_search(ignored_names_.begin(), ignored_names_.end(), module) ||
         std::binary_search(ignored_names_.begin(), ignored_names_.end(), class_of(module)) ||
         std::any_of(ignored_patterns_.begin(), ignored_patterns_.end(),
                     [&](const NamePattern& pattern) { return pattern.matches(module); });
}

const Scheme* Config::find(const std::string& module) const {
  if (ignores(module)) return nullptr;
  if (const auto exact = names_.find(module); exact != names_.end()) return &schemes_[exact->second];
  for (const auto& [pattern, scheme] : patterns_)
    if (pattern.matches(module)) return &schemes_[scheme];
  const auto by_class = names_.find(class_of(module));
  return by_class == names_.end() ? nullptr : &schemes_[by_class->second];
}

std::string Config::why_not(const std::string& module) const {
  return ignores(module) ? "is in ignore" : "is targeted by no config group";
}

}  // namespace lowp::checkpoint::compressed_tensors
