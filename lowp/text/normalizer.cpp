#include "lowp/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/fields.h"
#include "lowp/text/regex_syntax.h"

namespace lowp::text {
namespace {

// Characters below U+0300 neither combine nor compose, and are normalized by themselves. Their bytes are below 0xCC.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

// Characters with decompositions that Unicode got after version 11, whose tables the tokenizers package (0.23) has:
// it leaves them as they are, and so they stand in vocabularies.
bool is_newer(char32_t code) {
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
      {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};
  return code >= kRanges[0].first && std::any_of(std::begin(kRanges), std::end(kRanges), [code](const auto& range) {
           return code >= range.first && code <= range.second;
         });
}

constexpr std::size_t kLongest = 18;  // characters in the longest decomposition, a compatible one

std::vector<utf8proc_int32_t> decompose(std::string_view text, bool compatible) {
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(text, at);
    at += step.length;
    if (is_newer(step.code)) {
      codes.push_back(static_cast<utf8proc_int32_t>(step.code));
      continue;
    }
    utf8proc_int32_t parts[kLongest];
    int boundary = 0;
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(step.code), parts, std::size(parts),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0)), &boundary);
    LOWP_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(kLongest), "decomposition of U+{:04X}",
               static_cast<std::uint32_t>(step.code));
    codes.insert(codes.end(), parts, parts + count);
  }
  return codes;
}

// Puts each run of combining marks into canonical order. utf8proc's own exchange of neighbours is quadratic in the run.
void order_marks(std::vector<utf8proc_int32_t>& codes) {
  const auto combining = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if(begin, codes.end(), combining);
    const auto end = std::find_if_not(begin, codes.end(), combining);
    std::stable_sort(begin, end, [&](auto a, auto b) { return combining(a) < combining(b); });
    begin = end;
  }
}

std::string normal_form(std::string_view text, bool compatible, bool composed) {
  auto codes = decompose(text, compatible);
  order_marks(codes);
  auto length = static_cast<utf8proc_ssize_t>(codes.size());
  if (composed)
    length = utf8proc_normalize_utf32(codes.data(), length,
                                      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  LOWP_CHECK(length >= 0, "composition of {} characters", codes.size());
  std::string out;
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    append_utf8(out, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
  return out;
}

// Character by character, as Rust's char::to_lowercase: one of them becomes two.
std::string lowercase(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(text, at);
    at += step.length;
    if (step.code == U'\u0130') {
      append_utf8(out, U'i');
      append_utf8(out, U'\u0307');
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(step.code))));
    }
  }
  return out;
}

std::string_view stripped(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && is_white_space(next_utf8(text, 0).code))
    text.remove_prefix(next_utf8(text, 0).length);
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while ((text[last] & 0xC0) == 0x80) --last;
    if (!is_white_space(next_utf8(text, last).code)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

std::string replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  std::size_t done = 0;
  for (std::size_t at; (at = text.find(what, done)) != text.npos; done = at + what.size())
    out.append(text.substr(done, at - done)).append(with);
  return out.append(text.substr(done));
}

std::string replaced(std::string_view text, const Regex& regex, std::string_view with) {
  thread_local Regex::Scratch scratch;
  std::string out;
  std::size_t done = 0;
  Regex::Match match;
  for (std::size_t from = 0; from <= text.size() && regex.find(text, from, scratch, match);) {
    out.append(text.substr(done, match.begin - done)).append(with);
    done = from = match.end;
    if (match.begin == match.end) from += from < text.size() ? next_utf8(text, from).length : 1;
  }
  return out.append(text.substr(std::min(done, text.size())));
}

}  // namespace

Normalizer Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  visit_components(json, where, "normalizers", [&](const std::string& type, Fields& fields) {
    normalizer.steps_.push_back(parse_step(type, fields));
  });
  return normalizer;
}

Normalizer::Step Normalizer::parse_step(const std::string& type, Fields& fields) {
  Step step;
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.compatible = type.size() == 4;
    step.composed = type.back() == 'C';
  } else if (type == "Lowercase") {
    step.kind = Kind::lowercase;
  } else if (type == "Prepend") {
    step.kind = Kind::prepend;
    step.with = fields.string("prepend");
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.left = fields.flag("strip_left");
    step.right = fields.flag("strip_right");
  } else if (type == "Replace") {
    Fields pattern(fields.required("pattern"), fields.path("pattern"));
    const bool is_regex = pattern.find("Regex") != nullptr;
    step.kind = is_regex ? Kind::replace_regex : Kind::replace;
    step.what = pattern.string(is_regex ? "Regex" : "String");
    pattern.done();
    if (step.what.empty()) fail(ErrorCode::unsupported, "{}: an empty pattern", pattern.where());
    if (is_regex)
      step.regex = std::make_shared<const Regex>(translate_regex(step.what, pattern.where()), pattern.where());
    step.with = fields.string("content");
  } else {
    fail(ErrorCode::unsupported, "{}: {} is not supported", fields.where(), quote(type));
  }
  return step;
}

// False if run() would give the text itself; most texts are spared a copy.
bool Normalizer::changes(const Step& step, std::string_view text) {
  switch (step.kind) {
    case Kind::form:
      return step.compatible || !step.composed
                 ? std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })
                 : !is_plain(text);
    case Kind::replace:
      return text.find(step.what) != text.npos;
    case Kind::prepend:
    case Kind::strip:
      return !text.empty();
    default:
      return true;
  }
}

std::string Normalizer::run(const Step& step, std::string_view text) {
  switch (step.kind) {
    case Kind::form:
      return normal_form(text, step.compatible, step.composed);
    case Kind::lowercase:
      return lowercase(text);
    case Kind::replace:
      return replaced(text, step.what, step.with);
    case Kind::replace_regex:
      return replaced(text, *step.regex, step.with);
    case Kind::prepend:
      return step.with + std::string(text);
    case Kind::strip:
      return std::string(stripped(text, step.left, step.right));
  }
  return {};
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  for (const Step& step : steps_) {
    if (!changes(step, text)) continue;
    buffer = run(step, text);
    text = buffer;
  }
  return text;
}

}  // namespace lowp::text
