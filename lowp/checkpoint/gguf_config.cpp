#include "lowp/checkpoint/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lowp/base/error.h"
#include "lowp/checkpoint/model_config.h"

namespace lowp::checkpoint {
namespace {

constexpr std::int64_t kGemmaPeriod = 6;  // one layer of so many has no window
constexpr double kGemmaWindowTheta = 10000;
constexpr std::int64_t kMaxLayers = 100000;

// The shortest decimal of an f32, so that 1e-6 does not become 9.999999974752427e-07.
double shortest(double value) { return std::stod(fmt::format("{}", static_cast<float>(value))); }

// Looks up keys of one architecture.
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string_view architecture)
      : metadata_(metadata), prefix_(std::string(architecture) + ".") {}

  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  // A number, or an array that says the same for every layer.
  std::optional<std::int64_t> count(std::string_view name) const {
    const GgufValue* found = metadata_.find(key(name));
    if (!found || found->type != GgufType::array) return metadata_.count(key(name));
    const Json& list = found->value;
    if (list.empty() || !list[0].is_number_integer() || list[0].get<std::int64_t>() < 0 ||
        std::any_of(list.begin(), list.end(), [&](const Json& v) { return v != list[0]; }))
      fail(ErrorCode::unsupported, "{}: {}: lowp runs models whose layers are alike", metadata_.where(), key(name));
    return list[0].get<std::int64_t>();
  }
  std::int64_t required(std::string_view name) const {
    const auto found = count(name);
    if (!found) fail(ErrorCode::bad_input, "{}: {} is missing", metadata_.where(), key(name));
    if (*found < 1)
      fail(ErrorCode::bad_input, "{}: {}: expected a number from 1 on, found {}", metadata_.where(), key(name), *found);
    return *found;
  }
  std::optional<double> number(std::string_view name) const { return metadata_.number(key(name)); }
  std::string text(std::string_view name, const char* fallback) const {
    return metadata_.text(key(name)).value_or(fallback);
  }
  const GgufMetadata& metadata() const { return metadata_; }

 private:
  const GgufMetadata& metadata_;
  std::string prefix_;
};

// Llama 3's scaling is not in the metadata but in a table of divisors, one for each frequency.
Json llama3_scaling(std::span<const float> factors, double theta, const std::string& where) {
  Json scaling = {{"rope_type", "llama3"},
                  {"rope_theta", theta},
                  {"factor", *std::max_element(factors.begin(), factors.end())},
                  {"low_freq_factor", 1.0},
                  {"high_freq_factor", 4.0},
                  {"original_max_position_embeddings", 8192}};
  const std::vector<float> expected =
      rope_freqs_of({{"rope_parameters", scaling}}, static_cast<std::int64_t>(2 * factors.size()));
  for (std::size_t i = 0; i < factors.size(); ++i)
    if (!(std::abs(factors[i] - expected[i]) <= 1e-3f * expected[i]))
      fail(ErrorCode::unsupported, "{}: rope_freqs.weight is not the table of Llama 3's scaling: [{}] is {}, not {}",
           where, i, factors[i], expected[i]);
  return scaling;
}

Json rope_parameters(const Keys& keys, std::span<const float> factors) {
  const double theta = shortest(keys.number("rope.freq_base").value_or(10000));
  if (!factors.empty()) return llama3_scaling(factors, theta, keys.metadata().where());
  const std::string type = keys.text("rope.scaling.type", "none");
  Json rope = {{"rope_type", "default"}, {"rope_theta", theta}};
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn")
    fail(ErrorCode::unsupported, "{}: {}: {} is not supported (none, linear, yarn are)", keys.metadata().where(),
         keys.key("rope.scaling.type"), quote(type));
  const auto factor = keys.number("rope.scaling.factor");
  if (!factor)
    fail(ErrorCode::bad_input, "{}: {} is missing", keys.metadata().where(), keys.key("rope.scaling.factor"));
  rope["rope_type"] = type;
  rope["factor"] = shortest(*factor);
  if (type == "linear") return rope;
  if (const auto length = keys.count("rope.scaling.original_context_length"))
    rope["original_max_position_embeddings"] = *length;
  if (const auto beta = keys.number("rope.scaling.yarn_beta_fast")) rope["beta_fast"] = shortest(*beta);
  if (const auto beta = keys.number("rope.scaling.yarn_beta_slow")) rope["beta_slow"] = shortest(*beta);
  return rope;
}

void add_gemma3(const Keys& keys, std::int64_t layers, std::int64_t head_dim, Json& config) {
  config["hidden_activation"] = "gelu_pytorch_tanh";
  // llama.cpp's rule: the 27B model, known by its depth, scales by the width of a head as if there were no head_dim.
  const auto hidden = config["hidden_size"].get<std::int64_t>(),
             heads = config["num_attention_heads"].get<std::int64_t>();
  config["query_pre_attn_scalar"] = layers == 62 ? hidden / heads : head_dim;
  config["sliding_window"] = keys.required("attention.sliding_window");
  Json types = Json::array();
  for (std::int64_t i = 0; i < layers; ++i)
    types.push_back((i + 1) % kGemmaPeriod == 0 ? "full_attention" : "sliding_attention");
  config["layer_types"] = std::move(types);
  const double window_theta = keys.number("rope.freq_base_swa").value_or(kGemmaWindowTheta);
  config["rope_parameters"] = {
      {"full_attention", config["rope_parameters"]},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", shortest(window_theta)}}}};
}

}  // namespace

Json config_from_gguf(const GgufMetadata& metadata, const GgufArchitecture& a, const GgufTensorFacts& facts) {
  const Keys keys(metadata, a.gguf);
  const std::int64_t layers = keys.required("block_count"), hidden = keys.required("embedding_length");
  if (layers > kMaxLayers)
    fail(ErrorCode::bad_input, "{}: {}: {} layers", metadata.where(), keys.key("block_count"), layers);
  const std::int64_t heads = keys.required("attention.head_count");
  const auto key_length = keys.count("attention.key_length"), value_length = keys.count("attention.value_length");
  if (key_length != value_length)
    fail(ErrorCode::unsupported, "{}: keys and values of different lengths, {} and {}", metadata.where(),
         key_length.value_or(0), value_length.value_or(0));
  if (!key_length && hidden % heads != 0)
    fail(ErrorCode::bad_input, "{}: {} is missing, and {} is not a multiple of {} heads", metadata.where(),
         keys.key("attention.key_length"), hidden, heads);
  const std::int64_t head_dim = key_length.value_or(hidden / heads);
  if (const auto rotated = keys.count("rope.dimension_count"); rotated && *rotated != head_dim)
    fail(ErrorCode::unsupported, "{}: {}: {} of {} values of a head are rotated, all is supported", metadata.where(),
         keys.key("rope.dimension_count"), *rotated, head_dim);
  const auto eps = keys.number("attention.layer_norm_rms_epsilon");
  if (!eps)
    fail(ErrorCode::bad_input, "{}: {} is missing", metadata.where(), keys.key("attention.layer_norm_rms_epsilon"));

  Json config = {{"architectures", {a.hugging_face}},
                 {"model_type", a.model_type},
                 {"hidden_size", hidden},
                 {"intermediate_size", keys.required("feed_forward_length")},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", heads},
                 {"num_key_value_heads", keys.count("attention.head_count_kv").value_or(heads)},
                 {"head_dim", head_dim},
                 {"vocab_size", facts.vocab_size},
                 {"max_position_embeddings", keys.required("context_length")},
                 {"rms_norm_eps", shortest(*eps)},
                 {"rope_parameters", rope_parameters(keys, facts.rope_freqs)},
                 {"tie_word_embeddings", facts.tied},
                 {"attention_bias", facts.attention_bias}};
  if (a.gguf == "qwen2") config.erase("attention_bias");  // q, k and v always have one, o never
  if (a.output_norms)
    add_gemma3(keys, layers, head_dim, config);
  else
    config["hidden_act"] = "silu";
  if (a.has_experts) {
    const bool mixtral = a.model_type == "mixtral";
    config[mixtral ? "num_local_experts" : "num_experts"] = keys.required("expert_count");
    config["num_experts_per_tok"] = keys.required("expert_used_count");
    if (!mixtral) {
      config["moe_intermediate_size"] =
          keys.count("expert_feed_forward_length").value_or(keys.required("feed_forward_length"));
      config["norm_topk_prob"] = true;
    }
  }
  if (const auto bos = metadata.count("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = *bos;
  Json ends = Json::array();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = metadata.count(key); id && std::find(ends.begin(), ends.end(), *id) == ends.end())
      ends.push_back(*id);
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  return config;
}

std::vector<float> rope_freqs_of(const Json& config, std::int64_t head_dim) {
  const char* key = config.contains("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const auto at = config.find(key);
  if (at == config.end() || !at->is_object()) return {};
  const Json& rope = *at;
  if (rope.value("rope_type", rope.value("type", "")) != "llama3") return {};
  const double theta = rope.value("rope_theta", config.value("rope_theta", 10000.0)),
               factor = rope.value("factor", 8.0);
  const double low = rope.value("low_freq_factor", 1.0), high = rope.value("high_freq_factor", 4.0);
  const double original = rope.value("original_max_position_embeddings", 8192.0);
  std::vector<float> factors;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double t = (original / wavelength - low) / (high - low);
    factors.push_back(static_cast<float>(wavelength < original / high  ? 1.0
                                         : wavelength > original / low ? factor
                                                                       : 1 / ((1 - t) / factor + t)));
  }
  return factors;
}

void config_to_gguf(const Json& config, const std::string& where, const GgufArchitecture& a,
                    std::map<std::string, GgufValue, std::less<>>& out) {
  const auto dims = read_model_config(config, where);
  LOWP_CHECK(dims, "{}: {} is known", where, a.hugging_face);
  const std::string prefix = std::string(a.gguf) + ".";
  const auto count = [&](const char* key, std::int64_t value) {
    if (value > UINT32_MAX) fail(ErrorCode::unsupported, "{}: {} = {} does not fit GGUF's u32", where, key, value);
    out[prefix + key] = {GgufType::u32, GgufType::u32, value};
  };
  const auto number = [&](const char* key, double value) {
    out[prefix + key] = {GgufType::f32, GgufType::f32, static_cast<float>(value)};
  };
  const auto number_of = [&](const Json& object, const char* key, double fallback) {
    const auto at = object.find(key);
    if (at == object.end() || at->is_null()) return fallback;
    if (!at->is_number())
      fail(ErrorCode::bad_input, "{}: {}: expected a number, found {}", where, key, quote(at->dump()));
    return at->get<double>();
  };
  count("block_count", dims->num_hidden_layers);
  count("context_length", static_cast<std::int64_t>(number_of(config, "max_position_embeddings", 2048)));
  count("embedding_length", dims->hidden_size);
  count("feed_forward_length", dims->intermediate_size);
  count("attention.head_count", dims->num_attention_heads);
  count("attention.head_count_kv", dims->num_key_value_heads);
  count("attention.key_length", dims->head_dim);
  count("attention.value_length", dims->head_dim);
  count("vocab_size", dims->vocab_size);
  number("attention.layer_norm_rms_epsilon", number_of(config, "rms_norm_eps", 1e-6));
  if (a.interleaved) count("rope.dimension_count", dims->head_dim);
  if (dims->num_experts > 0) {
    count("expert_count", dims->num_experts);
    count("expert_used_count", static_cast<std::int64_t>(number_of(config, "num_experts_per_tok", 0)));
    count("expert_feed_forward_length", dims->moe_intermediate_size);
  }

  const Json* rope = &config;
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const auto at = config.find(key); at != config.end() && at->is_object()) {
      rope = &*at;
      break;
    }
  if (rope->contains("full_attention")) {
    if (rope->contains("sliding_attention"))
      number("rope.freq_base_swa", number_of((*rope)["sliding_attention"], "rope_theta", kGemmaWindowTheta));
    rope = &(*rope)["full_attention"];
  }
  number("rope.freq_base", number_of(*rope, "rope_theta", number_of(config, "rope_theta", 10000)));
  const std::string type = rope->value("rope_type", rope->value("type", "default"));
  if (type == "linear" || type == "yarn") {
    out[prefix + "rope.scaling.type"] = {GgufType::string, GgufType::u32, type};
    number("rope.scaling.factor", number_of(*rope, "factor", 1));
    if (rope->contains("original_max_position_embeddings"))
      count("rope.scaling.original_context_length",
            static_cast<std::int64_t>(number_of(*rope, "original_max_position_embeddings", 0)));
  } else if (type != "default" && type != "llama3") {
    fail(ErrorCode::unsupported, "{}: rope_type {} has no key in GGUF", where, quote(type));
  }

  if (!a.output_norms) return;
  count("attention.sliding_window", static_cast<std::int64_t>(number_of(config, "sliding_window", 4096)));
  if (const auto types = config.find("layer_types"); types != config.end() && types->is_array())
    for (std::size_t i = 0; i < types->size(); ++i)
      if (((*types)[i] == "full_attention") != ((i + 1) % kGemmaPeriod == 0))
        fail(ErrorCode::unsupported, "{}: layer_types: GGUF's gemma3 has full attention in every {}th layer", where,
             kGemmaPeriod);
}

}  // namespace lowp::checkpoint
