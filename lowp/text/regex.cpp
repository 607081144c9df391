#include "lowp/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>

#include "lowp/base/error.h"
#include "lowp/base/json.h"

namespace lowp::text {
namespace {

constexpr std::size_t kMaxPattern = 16384;  // bytes
// Steps of one search: a constant, and some for each byte that is left.
constexpr std::size_t kSteps = 100'000, kStepsPerByte = 16;
constexpr std::size_t kStackMin = 32 << 10, kStackMax = 16 << 20;  // bytes, of compiled expressions
constexpr std::uint32_t kHeapLimit = 64 << 10;                     // KiB, where there is no compiler
constexpr std::uint32_t kDepthLimit = 1'000'000;

std::string message_of(int error) {
  PCRE2_UCHAR message[128];
  pcre2_get_error_message(error, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

template <typename T>
T* checked(T* object) {
  if (!object) throw std::bad_alloc();
  return object;
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

struct Regex::Scratch::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;

  State() {
    data = checked(pcre2_match_data_create(1, nullptr));
    context = checked(pcre2_match_context_create(nullptr));
    stack = pcre2_jit_stack_create(kStackMin, kStackMax, nullptr);  // none without a compiler
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_heap_limit(context, kHeapLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
  }
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Regex::Scratch::~Scratch() = default;

Regex::Regex(const std::string& pattern, const std::string& where) : where_(where), code_(std::make_unique<Code>()) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      checked(pcre2_compile_context_create(nullptr)), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), kMaxPattern);
  int error = 0;
  std::size_t position = 0;
  constexpr std::uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions, &error, &position,
                              context.get());
  if (!code_->code)
    fail(ErrorCode::unsupported, "{}: not a regular expression that PCRE2 takes: {} at {} of {}", where_,
         message_of(error), position, quote(pattern));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it matching is slower, and the same
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

bool Regex::find(std::string_view text, std::size_t from, Scratch& scratch, Match& match) const {
  const auto& state = *scratch.state_;
  const std::size_t steps = kSteps + kStepsPerByte * (text.size() - from);
  pcre2_set_match_limit(state.context, static_cast<std::uint32_t>(
                                           std::min<std::size_t>(steps, std::numeric_limits<std::uint32_t>::max())));
  const int result = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    fail(ErrorCode::unsupported, "{}: the regular expression is too expensive for the text at byte {} of {}: {}",
         where_, from, text.size(), message_of(result));
  const std::size_t* ends = pcre2_get_ovector_pointer(state.data);
  match = {ends[0], ends[1]};
  return true;
}

}  // namespace lowp::text
