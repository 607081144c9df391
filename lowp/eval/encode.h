// Texts as token ids that a model can take.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

/// Tokenizer::encode(). Throws Error(bad_input) for an id that the model does not have.
std::vector<std::int32_t> encode(const models::Model& model, const text::Tokenizer& tokenizer, std::string_view text,
                                 bool add_special_tokens);

/// What stands for an empty context: BOS, or the first EOS if there is none (lm-eval). Throws Error(bad_input) for a
/// config.json that names neither, or one that the model does not have.
std::int32_t prefix_token(const models::Model& model);

}  // namespace lowp::eval
