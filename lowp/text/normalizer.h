// Normalization of text before it is split into words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/regex.h"

namespace lowp::text {

/// The "normalizer" of a tokenizer.json: Unicode's normal forms, Lowercase, Replace, Prepend and Strip, one after the
/// other.
class Normalizer {
 public:
  /// Throws Error(unsupported) naming another component.
  static Normalizer parse(const Json& normalizer, const std::string& where);

  /// The normal form of valid UTF-8: `text` itself where nothing changes, else a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  enum class Kind : std::uint8_t { form, lowercase, replace, replace_regex, prepend, strip };
  struct Step {
    Kind kind = Kind::form;
    bool compatible = false, composed = false;  // form: NFKC, NFKD; NFC, NFKC
    bool left = false, right = false;           // strip
    std::string what, with;                     // replace; prepend puts `with` before a text that is not empty
    std::shared_ptr<const Regex> regex;         // replace_regex
  };
  static Step parse_step(const std::string& type, class Fields& fields);
  static bool changes(const Step& step, std::string_view text);
  static std::string run(const Step& step, std::string_view text);

  std::vector<Step> steps_;
};

}  // namespace lowp::text
