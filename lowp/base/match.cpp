#include "lowp/base/match.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fnmatch.h>
#include <pcre2.h>

#include "lowp/base/error.h"

namespace lowp {

struct NamePattern::Regex {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Regex() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

NamePattern::NamePattern(const std::string& pattern, const std::string& where, Anchor anchor) : text_(pattern) {
  if (!pattern.starts_with("re:")) {
    glob_ = pattern.find_first_of("*?[") != std::string::npos;
    return;
  }
  int error = 0;
  std::size_t position = 0;
  regex_ = std::make_unique<Regex>();
  const std::uint32_t options = PCRE2_UTF | PCRE2_ANCHORED | (anchor == Anchor::full ? PCRE2_ENDANCHORED : 0u);
  regex_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data() + 3), pattern.size() - 3, options, &error,
                               &position, nullptr);
  if (!regex_->code) {
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorCode::usage, "{}: bad regular expression '{}' at {}: {}", where, pattern.substr(3), position,
         reinterpret_cast<const char*>(message));
  }
  regex_->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(regex_->context, 100000);
}

NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;
NamePattern& NamePattern::operator=(NamePattern&&) noexcept = default;

bool NamePattern::matches(const std::string& name) const {
  if (!regex_) return glob_ ? ::fnmatch(text_.c_str(), name.c_str(), 0) == 0 : text_ == name;
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(regex_->code, nullptr);
  const int result =
      pcre2_match(regex_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, data, regex_->context);
  pcre2_match_data_free(data);
  if (result < 0 && result != PCRE2_ERROR_NOMATCH)
    fail(ErrorCode::usage, "regular expression '{}' is too expensive to match", text_.substr(3));
  return result >= 0;
}

}  // namespace lowp
