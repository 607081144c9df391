// Bodies of /v1/completions and /v1/chat/completions as what the engine is asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/engine/request.h"
#include "lowp/server/chat_output.h"
#include "lowp/server/constraint.h"
#include "lowp/server/fields.h"
#include "lowp/text/chat_template.h"
#include "lowp/text/tokenizer.h"

namespace lowp::server {

/// What one request may ask for.
struct RequestLimits {
  std::int64_t sequences = 128;  // prompts times n
  std::size_t stops = 16, stop_bytes = 256;
  std::int64_t logprobs = 20;
  std::size_t logit_bias = 1024;
};

/// The model as its users know it.
struct ServedModel {
  std::vector<std::string> names;  // the first is the one it calls itself
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatTemplate* chat_template = nullptr;  // if there is one
  Constraints* constraints = nullptr;
  engine::Sampling defaults = {};
  std::optional<std::int64_t> max_tokens = {};  // of an answer in a chat, where the request does not say
  std::int64_t context = 0, vocab_size = 0;
  std::int64_t created = 0;           // Unix time
  std::string tokenizer_info = "{}";  // the JSON of /tokenizer_info
  RequestLimits limits = {};
};

/// How a chat's answer is read.
struct ChatShape {
  ChatSyntax syntax = {};
  bool in_reasoning = false;  // the prompt has opened it
  bool tools = false;         // there are some that may be called
  bool only_calls = false;    // and one must
};

struct GenerationRequest {
  std::vector<std::vector<std::int32_t>> prompts;
  int n = 1;  // answers to each prompt
  bool stream = false, include_usage = false;
  bool echo = false;                 // the prompt comes back before the text
  std::optional<int> logprobs = {};  // of each token, and of that many likeliest ones
  bool skip_special_tokens = true;
  ChatShape chat = {};
  std::shared_ptr<Constraint> constraint = {};  // what the text must be
  std::vector<std::string> stop;
  engine::Request engine;  // of every sequence, but for id, prompt and seed
  std::int64_t sequences() const { return static_cast<std::int64_t>(prompts.size()) * n; }
};

/// The body of a request as JSON. Throws ApiError 400.
Json parse_body(const std::string& body);

/// Throws ApiError: 404 if the model's name is another's, 400 otherwise.
GenerationRequest read_completion(const Json& body, const ServedModel& model);

/// What both kinds of requests share; `max_tokens` and `prompts` are the caller's.
void read_sampling(const Fields& body, const ServedModel& model, GenerationRequest& request);

/// What the text must be by response_format (or vLLM's names for it); nullptr: anything. Throws ApiError 400.
std::shared_ptr<Constraint> read_response_format(const Fields& body, const ServedModel& model);

/// Fills in the limit of new tokens. Throws ApiError 400 with the numbers if a prompt leaves no room, or less than was
/// asked for; but with its scores wanted and one new token, a prompt may be one longer than the context: clients that
/// score texts send such, and get null for the score of the new token. `fallback`: if nothing was asked for; what the
/// context leaves if unset.
void set_max_tokens(std::optional<std::int64_t> asked, std::optional<std::int64_t> fallback, const ServedModel& model,
                    GenerationRequest& request);

/// Throws ApiError 404 unless the name in the body, if any, is the model's.
void check_model_name(const Fields& body, const ServedModel& model);

/// The ids of a text that came with a request. Throws ApiError 400.
std::vector<std::int32_t> encode_text(const std::string& text, const text::EncodeOptions& options,
                                      const ServedModel& model);

/// Token ids out of JSON. Throws ApiError 400.
std::vector<std::int32_t> read_token_ids(const Json& list, const std::string& path, const ServedModel& model);

}  // namespace lowp::server
