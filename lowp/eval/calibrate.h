// What calibration learns from a text: statistics of the inputs of Linears.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "lowp/models/model.h"
#include "lowp/ops/input_stats.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

/// Statistics of the input of every Linear over the first `tokens` tokens of a text, in windows of 512 (or the model's
/// context); Linears that share an input share the object. Its largest magnitude is the running absolute maximum that
/// torchao's observers keep. Modules in `grams` get Gram matrices; if there are any, only these get statistics. Throws
/// Error(bad_input) for a text without tokens.
std::map<std::string, std::shared_ptr<const ops::InputStats>> input_stats(
    models::Model& model, const text::Tokenizer& tokenizer, const std::string& text, std::int64_t tokens,
    const std::set<std::string>& grams, const std::function<void(std::uint64_t, std::uint64_t)>& progress);

}  // namespace lowp::eval
