// Matching names by an exact name, a glob or a regular expression.
#pragma once

#include <memory>
#include <string>

namespace lowp {

/// A compiled pattern: "re:<PCRE2>" matches the full name (or, anchored left only, a prefix: Python's re.match), a
/// pattern with * or ? is a glob over the full name, anything else must be equal.
class NamePattern {
 public:
  enum class Anchor { full, left };

  /// Throws Error(usage) naming `where` and the position for a bad regular expression.
  NamePattern(const std::string& pattern, const std::string& where, Anchor anchor = Anchor::full);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;
  NamePattern& operator=(NamePattern&&) noexcept;

  const std::string& text() const { return text_; }
  bool is_exact() const { return !regex_ && !glob_; }
  /// Throws Error(usage) if matching exceeds its step limit (a pathological expression).
  bool matches(const std::string& name) const;

 private:
  struct Regex;
  std::string text_;
  bool glob_ = false;
  std::unique_ptr<Regex> regex_;
};

}  // namespace lowp
