// What static activation scales are taken from: the inputs of Linears on a calibration text.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

/// Largest magnitude of the input of every Linear over the first `tokens` tokens of a text, in windows of 512 (or the
/// model's context): the running absolute maximum that torchao's observers keep. Throws Error(bad_input) for a text
/// without tokens.
std::map<std::string, float> input_amax(models::Model& model, const text::Tokenizer& tokenizer, const std::string& text,
                                        std::int64_t tokens,
                                        const std::function<void(std::uint64_t, std::uint64_t)>& progress);

}  // namespace lowp::eval
