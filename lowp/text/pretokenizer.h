// Splitting text into words, which the model then encodes one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::text {

/// Oniguruma's and Rust's \w.
bool is_word_character(char32_t code);

/// A compiled regular expression; used from any number of threads, each with a RegexScratch of its own.
class Regex {
 public:
  /// `pattern` in PCRE2's syntax. Throws Error(unsupported) naming `where` if PCRE2 does not take it.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Match {
    std::size_t begin, end;
  };
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  /// The first match in text[from..]; what is before counts as context. Throws Error(unsupported) if the search exceeds
  /// its limit of steps. `text` is valid UTF-8.
  bool find(std::string_view text, std::size_t from, Scratch& scratch, Match& match) const;

 private:
  struct Code;
  std::string where_;
  std::unique_ptr<Code> code_;
};

/// What becomes of the parts that a Split finds.
enum class SplitBehavior : std::uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// The "pre_tokenizer" of a tokenizer.json: splits one after the other, byte-level at the end.
class PreTokenizer {
 public:
  /// Throws Error(bad_input) or Error(unsupported), naming the component.
  static PreTokenizer parse(const Json& pre_tokenizer, const std::string& where);

  /// Called for each word, in order. The view holds only during the call.
  using Sink = std::function<void(std::string_view)>;
  void split(std::string_view text, Regex::Scratch& scratch, const Sink& word) const;

 private:
  struct Stage {
    Regex regex;
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;
    bool add_space = false;  // before a text that does not begin with one
  };
  void add_split(const Json* pattern, const std::string& where);
  void run(std::size_t stage, std::string_view text, Regex::Scratch& scratch, const Sink& word) const;

  std::vector<Stage> stages_;
};

}  // namespace lowp::text
