// Regular expressions over UTF-8, searched with bounded effort.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lowp::text {

/// A compiled expression; used from any number of threads, each with a Scratch of its own.
class Regex {
 public:
  /// `pattern` in PCRE2's syntax (regex_syntax.h has Oniguruma's). Throws Error(unsupported) naming `where` if PCRE2
  /// does not take it.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Match {
    std::size_t begin = 0, end = 0;
  };
  /// What a search needs besides the expression; serves any expression.
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

  /// The first match in text[from..]; what comes before is seen by assertions. `text` is valid UTF-8. Throws
  /// Error(unsupported) if the search exceeds its limit of steps, which grows with the text: expressions that go back
  /// over the text a few times pass, exponential ones do not.
  bool find(std::string_view text, std::size_t from, Scratch& scratch, Match& match) const;

 private:
  struct Code;
  std::string where_;
  std::unique_ptr<Code> code_;
};

}  // namespace lowp::text
