#include "lowp/eval/encode.h"

#include "lowp/base/error.h"

namespace lowp::eval {
namespace {

void check_id(const models::Model& model, std::int32_t id, const char* who) {
  if (id >= model.config().vocab_size)
    fail(ErrorCode::bad_input, "{} gives the token id {}, the model has {} tokens", who, id, model.config().vocab_size);
}

}  // namespace

std::vector<std::int32_t> encode(const models::Model& model, const text::Tokenizer& tokenizer, std::string_view text,
                                 bool add_special_tokens) {
  std::vector<std::int32_t> ids = tokenizer.encode(text, add_special_tokens);
  for (const std::int32_t id : ids) check_id(model, id, "the tokenizer");
  return ids;
}

std::int32_t prefix_token(const models::Model& model) {
  const models::Config& config = model.config();
  if (!config.bos_id && config.eos_ids.empty())
    fail(ErrorCode::bad_input, "a BOS or EOS token is needed to begin with; config.json names neither");
  const std::int32_t id = config.bos_id ? *config.bos_id : config.eos_ids.front();
  check_id(model, id, "config.json");
  return id;
}

}  // namespace lowp::eval
