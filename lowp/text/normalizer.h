// Normalization of text before it is split into words.
#pragma once

#include <string>
#include <string_view>

#include "lowp/base/json.h"

namespace lowp::text {

/// The "normalizer" of a tokenizer.json: none, or NFC.
class Normalizer {
 public:
  /// Throws Error(unsupported) naming a component that is neither.
  static Normalizer parse(const Json& normalizer, const std::string& where);

  /// The normal form of valid UTF-8: `text` itself where nothing changes, else a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  bool nfc_ = false;
};

}  // namespace lowp::text
