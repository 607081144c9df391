#include "lowp/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/fields.h"

namespace lowp::text {
namespace {

// Characters below U+0300 neither combine nor compose, and are normalized by themselves. Their bytes are below 0xCC.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(text, at);
    at += step.length;
    utf8proc_int32_t parts[8];  // the longest canonical decomposition has four characters
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code), parts, std::size(parts),
                                               UTF8PROC_DECOMPOSE, &boundary);
    LOWP_CHECK(count >= 0 && count <= 8, "decomposition of U+{:04X}", static_cast<std::uint32_t>(step.code));
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

}  // namespace

Normalizer Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  visit_components(json, where, "normalizers", [&](const std::string& type, Fields& fields) {
    if (type != "NFC") fail(ErrorCode::unsupported, "{}: only NFC is supported, found {}", fields.where(), quote(type));
    normalizer.nfc_ = true;
  });
  return normalizer;
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  if (!nfc_ || is_plain(text)) return text;
  auto codes = decompose(text);
  order_marks(codes);
  const auto length = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  LOWP_CHECK(length >= 0, "composition of {} characters", codes.size());
  buffer.clear();
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    append_utf8(buffer, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
  return buffer;
}

}  // namespace lowp::text
