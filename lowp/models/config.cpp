#include "lowp/models/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lowp/base/error.h"
#include "lowp/models/architecture.h"

namespace lowp::models {
namespace {

const Architecture* const kArchitectures[] = {&kLlama, &kMistral,  &kMixtral, &kQwen2,
                                              &kQwen3, &kQwen3Moe, &kGemma3,  &kGptOss};

std::string text_or(const Json& json, const std::string& where, const char* key, const std::string& fallback) {
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return fallback;
  if (!at->is_string()) fail(ErrorCode::bad_input, "{}: {}: expected a string, found {}", where, key, at->type_name());
  return at->get<std::string>();
}

double positive(double value, const std::string& where, const char* key) {
  if (!(value > 0) || !std::isfinite(value))
    fail(ErrorCode::bad_input, "{}: {}: expected a positive number, found {}", where, key, value);
  return value;
}

// What stands in rope_scaling or rope_parameters (or, in the latter, under a layer type). `rope` has the theta of the
// config itself.
Rope parse_rope_scaling(const Json& config, const std::string& file, const Json& scaling, const std::string& where,
                        Rope rope) {
  if (!scaling.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, scaling.type_name());
  rope.theta = positive(number_or(scaling, where, "rope_theta", rope.theta), where, "rope_theta");
  if (number_or(scaling, where, "partial_rotary_factor", 1) != 1)
    fail(ErrorCode::unsupported, "{}: partial_rotary_factor: only 1 is supported", where);
  const std::string type = text_or(scaling, where, "rope_type", text_or(scaling, where, "type", "default"));
  const double positions = number_or(config, file, "max_position_embeddings", 8192);
  rope.original_max_position = positive(number_or(scaling, where, "original_max_position_embeddings", positions), where,
                                        "original_max_position_embeddings");
  if (type == "default") return rope;
  if (!scaling.contains("factor")) fail(ErrorCode::bad_input, "{}: factor is missing", where);
  rope.factor = positive(number_or(scaling, where, "factor", 1), where, "factor");
  if (type == "linear") {
    rope.scaling = Rope::Scaling::linear;
  } else if (type == "llama3") {
    rope.scaling = Rope::Scaling::llama3;
    rope.low_freq_factor = positive(number_or(scaling, where, "low_freq_factor", 1), where, "low_freq_factor");
    rope.high_freq_factor = positive(number_or(scaling, where, "high_freq_factor", 4), where, "high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor)
      fail(ErrorCode::bad_input, "{}: high_freq_factor must exceed low_freq_factor", where);
  } else if (type == "yarn") {
    rope.scaling = Rope::Scaling::yarn;
    rope.beta_fast = positive(number_or(scaling, where, "beta_fast", 32), where, "beta_fast");
    rope.beta_slow = positive(number_or(scaling, where, "beta_slow", 1), where, "beta_slow");
    rope.truncate = flag_or(scaling, where, "truncate", true);
    const auto mscale = [&](double m) { return rope.factor <= 1 ? 1.0 : 0.1 * m * std::log(rope.factor) + 1.0; };
    const double all = number_or(scaling, where, "mscale_all_dim", 0), one = number_or(scaling, where, "mscale", 0);
    rope.attention_factor =
        number_or(scaling, where, "attention_factor", all != 0 && one != 0 ? mscale(one) / mscale(all) : mscale(1));
  } else {
    fail(ErrorCode::unsupported, "{}: rope_type '{}' is not supported (default, linear, llama3, yarn are)", where,
         type);
  }
  return rope;
}

// Three spellings: rope_theta + rope_scaling (transformers 4), rope_parameters (5), and rope_parameters by layer type.
void parse_rope(const Json& json, const std::string& file, Config& config) {
  Rope plain;
  plain.theta = positive(number_or(json, file, "rope_theta", 10000), file, "rope_theta");
  if (number_or(json, file, "partial_rotary_factor", 1) != 1)
    fail(ErrorCode::unsupported, "{}: partial_rotary_factor: only 1 is supported", file);
  config.rope = plain;
  const bool v5 = json.contains("rope_parameters") && !json.at("rope_parameters").is_null();
  const char* key = v5 ? "rope_parameters" : "rope_scaling";
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return;
  const std::string where = file + ": " + key;
  if (!at->is_object() || (!at->contains("full_attention") && !at->contains("sliding_attention"))) {
    config.rope = parse_rope_scaling(json, file, *at, where, plain);
    return;
  }
  for (const auto& [type, value] : at->items()) {
    const std::string part = where + ": " + type;
    if (type == "full_attention")
      config.rope = parse_rope_scaling(json, file, value, part, plain);
    else if (type == "sliding_attention")
      config.window_rope = parse_rope_scaling(json, file, value, part, plain);
    else
      fail(ErrorCode::unsupported, "{}: layer type {} is not supported", where, quote(type));
  }
}

// The window of each layer, from layer_types, else from Qwen2's older flags.
std::vector<std::int64_t> parse_windows(const Json& json, const std::string& where, std::int64_t layers) {
  std::vector<std::int64_t> windows(static_cast<std::size_t>(layers));
  const std::int64_t window = count_or(json, where, "sliding_window", 0);
  const auto types = json.find("layer_types");
  if (types == json.end() || types->is_null()) {
    const bool slides = flag_or(json, where, "use_sliding_window", false);
    for (std::int64_t i = count_or(json, where, "max_window_layers", 28); slides && i < layers; ++i)
      windows[i] = window;
    return windows;
  }
  if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers)
    fail(ErrorCode::bad_input, "{}: layer_types: expected a list of num_hidden_layers = {} types, found {}", where,
         layers, quote(types->dump()));
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const Json& type = (*types)[i];
    if (type == "sliding_attention") {
      if (window == 0)
        fail(ErrorCode::bad_input, "{}: layer_types has sliding_attention, sliding_window is missing", where);
      windows[i] = window;
    } else if (type != "full_attention") {
      fail(ErrorCode::unsupported, "{}: layer_types: {} is not supported", where, quote(type.dump()));
    }
  }
  return windows;
}

kernels::GateActivation parse_activation(const Json& json, const std::string& where) {
  const char* key = json.contains("hidden_activation") ? "hidden_activation" : "hidden_act";
  const std::string name = text_or(json, where, key, "silu");
  if (name == "silu") return kernels::GateActivation::silu;
  if (name == "gelu_pytorch_tanh") return kernels::GateActivation::gelu_tanh;
  fail(ErrorCode::unsupported, "{}: {} '{}' is not supported (silu, gelu_pytorch_tanh are)", where, key, name);
}

std::vector<std::int32_t> token_ids(const Json& config, const std::string& where, const char* key) {
  const auto at = config.find(key);
  if (at == config.end() || at->is_null()) return {};
  std::vector<std::int32_t> ids;
  for (const Json& id : at->is_array() ? *at : Json::array({*at})) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > INT32_MAX)
      fail(ErrorCode::bad_input, "{}: {}: expected token ids, found {}", where, key, at->dump());
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

}  // namespace

bool given(const Json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && !at->is_null();
}

bool flag_or(const Json& json, const std::string& where, const char* key, bool fallback) {
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return fallback;
  if (!at->is_boolean())
    fail(ErrorCode::bad_input, "{}: {}: expected true or false, found {}", where, key, at->type_name());
  return at->get<bool>();
}

double number_or(const Json& json, const std::string& where, const char* key, double fallback) {
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return fallback;
  if (!at->is_number()) fail(ErrorCode::bad_input, "{}: {}: expected a number, found {}", where, key, at->type_name());
  return at->get<double>();
}

std::int64_t count_or(const Json& json, const std::string& where, const char* key, std::int64_t fallback) {
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return fallback;
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (!at->is_number_integer() || at->get<std::int64_t>() < 1 || at->get<std::int64_t>() > kMost)
    fail(ErrorCode::bad_input, "{}: {}: expected a number from 1 to {}, found {}", where, key, kMost,
         quote(at->dump()));
  return at->get<std::int64_t>();
}

void read_experts_per_token(const Json& json, const std::string& where, std::int64_t fallback, Config& config) {
  config.experts_per_token = count_or(json, where, "num_experts_per_tok", fallback);
  if (config.experts_per_token > config.num_experts)
    fail(ErrorCode::bad_input, "{}: num_experts_per_tok: expected 1 to {}, of as many experts, found {}", where,
         config.num_experts, config.experts_per_token);
}

void slide_all_layers(const Json& json, const std::string& where, Config& config) {
  if (given(json, "layer_types")) return;
  std::fill(config.window.begin(), config.window.end(), count_or(json, where, "sliding_window", 0));
}

Config parse_config(const Json& json, const std::string& where) {
  const auto dims = checkpoint::read_model_config(json, where);
  const Architecture* architecture = nullptr;
  for (const Architecture* a : kArchitectures)
    if (dims && dims->architecture == a->name) architecture = a;
  if (!architecture) {
    std::vector<std::string> known;
    for (const Architecture* a : kArchitectures) known.emplace_back(a->name);
    fail(ErrorCode::unsupported, "{}: architecture {} cannot be run; known: {}", where,
         json.contains("architectures") ? json.at("architectures").dump() : "(none)", fmt::join(known, ", "));
  }
  Config config;
  static_cast<checkpoint::ModelConfig&>(config) = *dims;
  config.gate_activation = parse_activation(json, where);
  if (config.head_dim % 2 != 0) fail(ErrorCode::bad_input, "{}: head_dim {} is odd", where, config.head_dim);
  config.rms_norm_eps = positive(number_or(json, where, "rms_norm_eps", 1e-6), where, "rms_norm_eps");
  config.max_position_embeddings = count_or(json, where, "max_position_embeddings", 2048);
  parse_rope(json, where, config);
  constexpr std::int64_t kMostLayers = 1 << 16;  // a wrong count is not worth the memory
  if (config.num_hidden_layers > kMostLayers)
    fail(ErrorCode::unsupported, "{}: num_hidden_layers: at most {} are supported, found {}", where, kMostLayers,
         config.num_hidden_layers);
  config.window = parse_windows(json, where, config.num_hidden_layers);
  config.eos_ids = token_ids(json, where, "eos_token_id");
  if (const auto bos = token_ids(json, where, "bos_token_id"); !bos.empty()) config.bos_id = bos.front();
  architecture->configure(json, where, config);
  return config;
}

std::vector<double> rope_frequencies(const Rope& rope, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  const double d = static_cast<double>(head_dim), two_pi = 2 * std::numbers::pi;
  std::vector<double> frequencies(static_cast<std::size_t>(half));
  // yarn: the dimension that turns r times over the original context
  const auto dimension = [&](double r) {
    return d * std::log(rope.original_max_position / (r * two_pi)) / (2 * std::log(rope.theta));
  };
  double low = dimension(rope.beta_fast), high = dimension(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;
  for (std::int64_t i = 0; i < half; ++i) {
    const double f = 1 / std::pow(rope.theta, 2.0 * static_cast<double>(i) / d);
    double scaled = f;
    switch (rope.scaling) {
      case Rope::Scaling::none:
        break;
      case Rope::Scaling::linear:
        scaled = f / rope.factor;
        break;
      case Rope::Scaling::llama3: {
        const double wavelength = two_pi / f;
        const double t = (rope.original_max_position / wavelength - rope.low_freq_factor) /
                         (rope.high_freq_factor - rope.low_freq_factor);
        if (wavelength > rope.original_max_position / rope.low_freq_factor)
          scaled = f / rope.factor;
        else if (wavelength >= rope.original_max_position / rope.high_freq_factor)
          scaled = (1 - t) * f / rope.factor + t * f;
        break;
      }
      case Rope::Scaling::yarn: {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        scaled = f / rope.factor * ramp + f * (1 - ramp);
        break;
      }
    }
    frequencies[i] = scaled;
  }
  return frequencies;
}

}  // namespace lowp::models
