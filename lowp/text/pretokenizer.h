// Splitting text into words, which the model then encodes one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/fields.h"
#include "lowp/text/regex.h"

namespace lowp::text {

/// Rust's \w: what `single_word` goes by.
bool is_word_character(char32_t code);

/// What becomes of the matches of a split, and of the text between them.
enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// The "pre_tokenizer" of a tokenizer.json: splits, one applied to the parts of the other; byte-level at the end, or
/// not at all, with spaces marked by "▁" (Metaspace) or in the normalizer.
class PreTokenizer {
 public:
  /// Throws Error(bad_input) or Error(unsupported), naming the component.
  static PreTokenizer parse(const Json& pre_tokenizer, const std::string& where);

  /// Called for each word in order, with a view that holds during the call.
  using Sink = std::function<void(std::string_view)>;
  /// `text` is valid UTF-8; `first`: it is the beginning of the whole text. Throws what Regex::find does.
  void split(std::string_view text, bool first, Regex::Scratch& scratch, const Sink& word) const;

  bool is_byte_level() const { return byte_level_; }

 private:
  struct Stage {
    std::optional<Regex> regex;  // none: no split
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;     // matches are what is between the matches
    bool add_space = false;  // first, before a text that does not begin with one
    // Metaspace: takes the place of spaces, and is put before a text that does not begin with it
    std::string mark;
    enum class Prepend : std::uint8_t { never, first, always } prepend = Prepend::never;
  };
  void add_component(const std::string& type, Fields& fields);
  static Stage metaspace(Fields& fields);
  void run(std::size_t stage, std::string_view text, bool first, Regex::Scratch& scratch, const Sink& word) const;

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace lowp::text
