#include "lowp/text/pretokenizer.h"

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/regex_syntax.h"

namespace lowp::text {
namespace {

constexpr std::size_t kMaxStages = 64;  // split() recurses over them

// What ByteLevel splits by.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// These are Rust's, in PCRE2's syntax: word characters include the joiners.
constexpr const char* kWordClass = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d})";
constexpr const char* kPunctuation = R"([!-/:-@\[-`{-~\p{P}])";

struct BehaviorName {
  std::string_view name;
  SplitBehavior behavior;
};
constexpr BehaviorName kBehaviors[] = {
    {"Removed", SplitBehavior::removed},
    {"Isolated", SplitBehavior::isolated},
    {"MergedWithPrevious", SplitBehavior::merged_with_previous},
    {"MergedWithNext", SplitBehavior::merged_with_next},
    {"Contiguous", SplitBehavior::contiguous},
};

SplitBehavior read_behavior(Fields& fields) {
  const std::string name = fields.string("behavior");
  for (const auto& [known, behavior] : kBehaviors)
    if (known == name) return behavior;
  fail(ErrorCode::bad_input, "{}: no such behavior: {}", fields.path("behavior"), quote(name));
}

// {"Regex": "..."} or {"String": "..."}, as an expression for PCRE2.
std::string read_pattern(Fields& fields) {
  Fields pattern(fields.required("pattern"), fields.path("pattern"));
  const bool is_regex = pattern.find("Regex") != nullptr;
  const std::string text = pattern.string(is_regex ? "Regex" : "String");
  pattern.done();
  if (text.empty()) fail(ErrorCode::unsupported, "{}: an empty pattern", pattern.where());
  return is_regex ? translate_regex(text, pattern.where()) : quote_regex(text);
}

// Puts parts together as the behavior asks. Parts cover the text in order.
template <typename Emit>
class Joiner {
 public:
  Joiner(SplitBehavior behavior, std::string_view text, Emit emit) : behavior_(behavior), text_(text), emit_(emit) {}

  void add(std::size_t begin, std::size_t end, bool is_match) {
    const bool joins = joins_pending(is_match);
    if (!joins) flush();
    if (behavior_ != SplitBehavior::removed || !is_match) {
      if (!joins) begin_ = begin;
      end_ = end;
      pending_ = true;
    }
    was_match_ = is_match;
  }
  void flush() {
    if (pending_ && begin_ < end_) emit_(text_.substr(begin_, end_ - begin_));
    pending_ = false;
  }

 private:
  bool joins_pending(bool is_match) const {
    if (!pending_) return false;
    switch (behavior_) {
      case SplitBehavior::merged_with_previous:
        return is_match && !was_match_;
      case SplitBehavior::merged_with_next:
        return !is_match && was_match_;
      case SplitBehavior::contiguous:
        return is_match == was_match_;
      default:
        return false;
    }
  }

  SplitBehavior behavior_;
  std::string_view text_;
  Emit emit_;
  bool pending_ = false, was_match_ = false;
  std::size_t begin_ = 0, end_ = 0;
};

}  // namespace

bool is_word_character(char32_t code) {
  static const Regex word(fmt::format("[{}]", kWordClass), "word characters");
  thread_local Regex::Scratch scratch;
  std::string text;
  append_utf8(text, code);
  Regex::Match match;
  return word.find(text, 0, scratch, match);
}

PreTokenizer PreTokenizer::parse(const Json& json, const std::string& where) {
  PreTokenizer result;
  visit_components(json, where, "pretokenizers", [&](const std::string& type, Fields& fields) {
    if (result.byte_level_)
      fail(ErrorCode::unsupported, "{}: {} after ByteLevel is not supported", fields.where(), quote(type));
    if (result.stages_.size() == kMaxStages)
      fail(ErrorCode::unsupported, "{}: more than {} components", fields.where(), kMaxStages);
    result.add_component(type, fields);
  });
  return result;
}

void PreTokenizer::add_component(const std::string& type, Fields& fields) {
  const auto add = [&](const std::string& pattern, SplitBehavior behavior, bool invert = false) {
    Stage& stage = stages_.emplace_back();
    stage.regex.emplace(pattern, fields.where());
    stage.behavior = behavior;
    stage.invert = invert;
  };
  if (type == "Split") {
    const std::string pattern = read_pattern(fields);
    add(pattern, read_behavior(fields), fields.flag("invert"));
  } else if (type == "Digits") {
    add(R"(\p{N})", fields.flag("individual_digits") ? SplitBehavior::isolated : SplitBehavior::contiguous);
  } else if (type == "Punctuation") {
    add(kPunctuation, fields.find("behavior") ? read_behavior(fields) : SplitBehavior::isolated);
  } else if (type == "Whitespace") {
    add(fmt::format("[{0}]+|[^{0}{1}]+", kWordClass, white_space_class()), SplitBehavior::removed, true);
  } else if (type == "WhitespaceSplit") {
    add(fmt::format("[{}]", white_space_class()), SplitBehavior::removed);
  } else if (type == "Metaspace") {
    stages_.push_back(metaspace(fields));
  } else if (type == "ByteLevel") {
    byte_level_ = true;
    Stage stage;
    stage.add_space = fields.flag("add_prefix_space");
    fields.flag("trim_offsets", true);  // lowp has no offsets
    if (fields.flag("use_regex", true)) stage.regex.emplace(translate_regex(kGpt2, fields.where()), fields.where());
    if (stage.regex || stage.add_space) stages_.push_back(std::move(stage));
  } else {
    fail(ErrorCode::unsupported, "{}: {} is not supported", fields.where(), quote(type));
  }
}

PreTokenizer::Stage PreTokenizer::metaspace(Fields& fields) {
  Stage stage;
  stage.mark = fields.string("replacement");
  if (stage.mark.empty()) fail(ErrorCode::bad_input, "{}: an empty replacement", fields.where());
  const bool prefix = fields.flag("add_prefix_space", true);
  const std::string scheme = fields.find("prepend_scheme") ? fields.string("prepend_scheme")
                             : prefix                      ? "always"
                                                           : "never";
  if (scheme != "always" && scheme != "first" && scheme != "never")
    fail(ErrorCode::bad_input, "{}: no such scheme: {}", fields.path("prepend_scheme"), quote(scheme));
  stage.prepend = scheme == "always"  ? Stage::Prepend::always
                  : scheme == "first" ? Stage::Prepend::first
                                      : Stage::Prepend::never;
  if (fields.flag("split", true)) {
    stage.regex.emplace(quote_regex(stage.mark), fields.where());
    stage.behavior = SplitBehavior::merged_with_next;
  }
  return stage;
}

void PreTokenizer::split(std::string_view text, bool first, Regex::Scratch& scratch, const Sink& word) const {
  if (!text.empty()) run(0, text, first, scratch, word);
}

void PreTokenizer::run(std::size_t index, std::string_view text, bool first, Regex::Scratch& scratch,
                       const Sink& word) const {
  if (index == stages_.size()) return word(text);
  const Stage& stage = stages_[index];
  std::string with_space;
  if (!stage.mark.empty()) {
    const bool prepends = stage.prepend == Stage::Prepend::always || (stage.prepend == Stage::Prepend::first && first);
    if (prepends && !text.starts_with(' ') && !text.starts_with(stage.mark)) with_space = stage.mark;
    for (const char c : text) c == ' ' ? with_space.append(stage.mark) : with_space.append(1, c);
    text = with_space;
  }
  if (stage.add_space && !text.starts_with(' ')) {
    with_space.reserve(text.size() + 1);
    with_space.append(" ").append(text);
    text = with_space;
  }
  if (!stage.regex) return run(index + 1, text, first, scratch, word);
  Joiner parts(stage.behavior, text, [&](std::string_view part) {
    run(index + 1, part, first && part.data() == text.data(), scratch, word);
  });
  std::size_t done = 0;  // text before is in parts
  Regex::Match match;
  for (std::size_t from = 0; from <= text.size() && stage.regex->find(text, from, scratch, match);) {
    const bool empty = match.begin == match.end;
    // Nothing matched right after a match does not count.
    if (!empty || match.end != done || done == 0) {
      if (done < match.begin) parts.add(done, match.begin, stage.invert);
      parts.add(match.begin, match.end, !stage.invert);
      done = match.end;
    }
    from = match.end;
    if (empty) from += from < text.size() ? next_utf8(text, from).length : 1;
  }
  if (done < text.size()) parts.add(done, text.size(), stage.invert);
  parts.flush();
}

}  // namespace lowp::text
