#include "lowp/server/generation_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "lowp/base/error.h"
#include "lowp/server/api_error.h"

namespace lowp::server {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;

std::uint64_t fresh_seed() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

std::vector<std::string> read_stop(const Fields& body, const RequestLimits& limits) {
  const Json* value = body.find("stop");
  if (!value) return {};
  std::vector<std::string> stops;
  const auto add = [&](const Json& stop) {
    if (!stop.is_string()) throw bad_request("stop: expected a string or a list of strings", "stop");
    stops.push_back(stop.get<std::string>());
    if (stops.back().empty() || stops.back().size() > limits.stop_bytes)
      throw bad_request(fmt::format("stop: a text has from 1 to {} bytes", limits.stop_bytes), "stop");
  };
  if (value->is_array()) {
    if (value->size() > limits.stops) throw bad_request(fmt::format("stop: at most {} texts", limits.stops), "stop");
    for (const Json& stop : *value) add(stop);
  } else {
    add(*value);
  }
  return stops;
}

std::vector<std::pair<std::int32_t, double>> read_logit_bias(const Fields& body, const ServedModel& model) {
  const Json* value = body.find("logit_bias");
  if (!value) return {};
  if (!value->is_object()) throw bad_request("logit_bias: expected an object of biases by token id", "logit_bias");
  if (value->size() > model.limits.logit_bias)
    throw bad_request(fmt::format("logit_bias: at most {} ids", model.limits.logit_bias), "logit_bias");
  std::vector<std::pair<std::int32_t, double>> biases;
  for (const auto& [key, bias] : value->items()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= model.vocab_size)
      throw bad_request(fmt::format("logit_bias: {} is not a token id of the model", quote(key)), "logit_bias");
    const double x = bias.is_number() ? bias.get<double>() : 1000;
    if (!(x >= -100 && x <= 100)) throw bad_request("logit_bias: expected biases from -100 to 100", "logit_bias");
    biases.emplace_back(id, x);
  }
  return biases;
}

std::vector<std::int32_t> encode(const std::string& text, const Fields& body, const ServedModel& model) {
  return encode_text(text,
                     {.add_special_tokens = body.flag("add_special_tokens").value_or(true),
                      .parse_special = body.flag("parse_special").value_or(false)},
                     model);
}

std::vector<std::vector<std::int32_t>> read_prompts(const Fields& body, const ServedModel& model) {
  const Json* prompt = body.find("prompt");
  if (!prompt) throw bad_request("prompt: is missing", "prompt");
  std::vector<std::vector<std::int32_t>> prompts;
  if (prompt->is_string()) {
    prompts.push_back(encode(prompt->get<std::string>(), body, model));
  } else if (!prompt->is_array() || prompt->empty()) {
    throw bad_request("prompt: expected a text, a list of token ids, or a list of either, not empty", "prompt");
  } else if (prompt->front().is_number()) {
    prompts.push_back(read_token_ids(*prompt, "prompt", model));
  } else {
    if (static_cast<std::int64_t>(prompt->size()) > model.limits.sequences)
      throw bad_request(fmt::format("prompt: at most {} in a request", model.limits.sequences), "prompt");
    for (std::size_t i = 0; i < prompt->size(); ++i) {
      const Json& one = (*prompt)[i];
      const std::string path = fmt::format("prompt[{}]", i);
      if (one.is_string())
        prompts.push_back(encode(one.get<std::string>(), body, model));
      else
        prompts.push_back(read_token_ids(one, path, model));
    }
  }
  for (const auto& ids : prompts)
    if (ids.empty()) throw bad_request("prompt: is empty", "prompt");
  return prompts;
}

}  // namespace

std::vector<std::int32_t> encode_text(const std::string& text, const text::EncodeOptions& options,
                                      const ServedModel& model) try {
  return model.tokenizer->encode(text, options);
} catch (
    const Error& e) {  // a character without a token, or beyond the effort that the tokenizer's expressions may take
  throw bad_request(e.what(), "prompt");
}

Json parse_body(const std::string& body) try { return parse_json(body, "the body"); } catch (const Error& e) {
  throw bad_request(e.what());
}

std::vector<std::int32_t> read_token_ids(const Json& list, const std::string& path, const ServedModel& model) {
  if (!list.is_array()) throw bad_request(fmt::format("{}: expected a text or a list of token ids", path), path);
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) ids.push_back(static_cast<std::int32_t>(read_integer(id, path, 0, model.vocab_size - 1)));
  return ids;
}

void check_model_name(const Fields& body, const ServedModel& model) {
  const auto name = body.string("model");
  if (name && std::find(model.names.begin(), model.names.end(), *name) == model.names.end())
    throw ApiError(404, "not_found_error",
                   fmt::format("the model {} is not served here; {} is", quote(*name), quote(model.names.front())),
                   "model");
}

void read_sampling(const Fields& body, const ServedModel& model, GenerationRequest& request) {
  check_model_name(body, model);
  for (const char* unsupported : {"best_of", "use_beam_search", "suffix", "prompt_embeds", "prompt_logprobs"})
    if (const Json* value = body.find(unsupported); value && *value != false && *value != 0 && *value != 1)
      throw bad_request(fmt::format("{}: is not supported", unsupported), unsupported);

  engine::Request& e = request.engine;
  engine::Sampling& s = e.sampling = model.defaults;
  s.temperature = body.number("temperature", 0, 100).value_or(s.temperature);
  s.top_p = body.number("top_p", 0, 1).value_or(s.top_p);
  if (s.top_p == 0) throw bad_request("top_p: expected a number above 0 and up to 1", "top_p");
  s.top_k = body.integer("top_k", -1, kMostTokens).value_or(s.top_k);
  s.min_p = body.number("min_p", 0, 1).value_or(s.min_p);
  s.repetition_penalty = body.number("repetition_penalty", 1e-3, 1e3).value_or(s.repetition_penalty);
  s.presence_penalty = body.number("presence_penalty", -2, 2).value_or(s.presence_penalty);
  s.frequency_penalty = body.number("frequency_penalty", -2, 2).value_or(s.frequency_penalty);
  s.logit_bias = read_logit_bias(body, model);
  const auto seed = body.integer("seed", INT64_MIN, INT64_MAX);
  s.seed = seed ? static_cast<std::uint64_t>(*seed) : fresh_seed();

  e.ignore_eos = body.flag("ignore_eos").value_or(false);
  e.min_tokens = body.integer("min_tokens", 0, kMostTokens).value_or(0);
  if (const Json* ids = body.array("stop_token_ids")) {
    if (ids->size() > model.limits.stops)
      throw bad_request(fmt::format("stop_token_ids: at most {}", model.limits.stops), "stop_token_ids");
    e.stop_ids = read_token_ids(*ids, "stop_token_ids", model);
  }

  e.prefix_salt = body.string("cache_salt").value_or("");
  if (e.prefix_salt.size() > model.limits.stop_bytes) throw bad_request("cache_salt: is too long", "cache_salt");
  request.stop = read_stop(body, model.limits);
  request.skip_special_tokens = body.flag("skip_special_tokens").value_or(true);
  request.n = static_cast<int>(body.integer("n", 1, model.limits.sequences).value_or(1));
  request.stream = body.flag("stream").value_or(false);
  if (const auto options = body.object("stream_options")) {
    if (!request.stream) throw bad_request("stream_options: only with \"stream\": true", "stream_options");
    request.include_usage = options->flag("include_usage").value_or(false);
  }
}

std::shared_ptr<Constraint> read_response_format(const Fields& body, const ServedModel& model) {
  const auto of_schema = [&](const Json& schema, const std::string& path) {
    if (schema.is_string()) return model.constraints->of_schema(parse_body(schema.get<std::string>()), path);
    return model.constraints->of_schema(schema, path);
  };
  for (const char* unsupported : {"guided_regex", "guided_choice", "guided_grammar", "structural_tag"})
    if (body.find(unsupported)) throw bad_request(fmt::format("{}: is not supported", unsupported), unsupported);
  if (const Json* schema = body.find("guided_json")) return of_schema(*schema, "guided_json");
  if (const auto structured = body.object("structured_outputs")) {
    if (const Json* schema = structured->find("json")) return of_schema(*schema, "structured_outputs.json");
    throw bad_request("structured_outputs: only json is supported", "structured_outputs");
  }
  const auto format = body.object("response_format");
  if (!format) return nullptr;
  const std::string type = format->string("type").value_or("");
  if (type == "text") return nullptr;
  if (type == "json_object") return model.constraints->of_schema(nullptr, "response_format");
  if (type != "json_schema")
    throw bad_request(
        fmt::format("response_format.type: expected text, json_object or json_schema, found {}", quote(type)),
        "response_format");
  const auto named = format->object("json_schema");
  const Json* schema = named ? named->find("schema") : nullptr;
  if (!schema) throw bad_request("response_format.json_schema.schema: is missing", "response_format");
  return of_schema(*schema, "response_format.json_schema.schema");
}

void set_max_tokens(std::optional<std::int64_t> asked, std::optional<std::int64_t> fallback, const ServedModel& model,
                    GenerationRequest& request) {
  std::int64_t longest = 0;
  for (const auto& prompt : request.prompts) longest = std::max(longest, static_cast<std::int64_t>(prompt.size()));
  const std::int64_t room = model.context - longest;
  // All that is wanted of the last token of such a prompt is its own score.
  const bool only_scores = request.echo && request.logprobs && asked == 1 && room == -1;
  if (asked.value_or(1) > room && !only_scores)
    throw bad_request(
        asked && room > 0
            ? fmt::format("the prompt has {} tokens and max_tokens is {}: together more than the context of {}",
                          longest, *asked, model.context)
            : fmt::format("the prompt has {} tokens and the context {}", longest, model.context),
        room > 0 ? "max_tokens" : "prompt");
  request.engine.max_new_tokens = asked.value_or(std::min(room, fallback.value_or(room)));
  if (request.engine.min_tokens > request.engine.max_new_tokens)
    throw bad_request(fmt::format("min_tokens: expected at most max_tokens ({}), found {}",
                                  request.engine.max_new_tokens, request.engine.min_tokens),
                      "min_tokens");
  if (request.sequences() > model.limits.sequences)
    throw bad_request(fmt::format("prompts times n: at most {}, found {}", model.limits.sequences, request.sequences()),
                      "n");
}

GenerationRequest read_completion(const Json& json, const ServedModel& model) {
  const Fields body(json, "");
  GenerationRequest request;
  read_sampling(body, model, request);
  request.echo = body.flag("echo").value_or(false);
  if (const auto count = body.integer("logprobs", 0, model.limits.logprobs))
    request.logprobs = static_cast<int>(*count);
  request.engine.logprobs = request.logprobs;
  if (request.echo) request.engine.prompt_logprobs = request.logprobs;
  request.constraint = read_response_format(body, model);
  request.prompts = read_prompts(body, model);
  constexpr std::int64_t kDefault = 16;  // OpenAI's
  set_max_tokens(body.integer("max_tokens", request.echo ? 0 : 1, kMostTokens), kDefault, model, request);
  return request;
}

}  // namespace lowp::server
