// What is put around a text's tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

/// The "post_processor" of a tokenizer.json, for a single sequence.
struct PostProcessor {
  std::vector<std::int32_t> prefix, suffix;

  /// Throws Error(bad_input) or Error(unsupported), naming the component.
  static PostProcessor parse(const Json& post_processor, const std::string& where, const Vocabulary& vocabulary);
};

}  // namespace lowp::text
