#include "lowp/text/decoder.h"

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/base/whole_number.h"
#include "lowp/text/fields.h"

namespace lowp::text {
namespace {

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != text.npos; at += with.size())
    text.replace(at, what.size(), with);
}

}  // namespace

Decoder Decoder::parse(const Json& json, const std::string& where) {
  Decoder decoder;
  visit_components(json, where, "decoders", [&](const std::string& type, Fields& fields) {
    if (decoder.byte_level_) fail(ErrorCode::unsupported, "{}: {} after ByteLevel", fields.where(), quote(type));
    decoder.add_component(type, fields);
  });
  if (!decoder.byte_level_ && !decoder.fused_ && decoder.mark_.empty())
    fail(ErrorCode::unsupported, "{}: a decoder without ByteLevel, Metaspace or Fuse puts spaces between tokens",
         where);
  return decoder;
}

void Decoder::add_component(const std::string& type, Fields& fields) {
  // The order in which SentencePiece's components stand matters; there is one that is in use.
  const auto before = [&](bool already, const char* what) {
    if (already) fail(ErrorCode::unsupported, "{}: {} after {} is not supported", fields.where(), quote(type), what);
  };
  if (type == "ByteLevel") {
    before(byte_fallback_ || fused_ || !replacements_.empty() || !mark_.empty(), "others");
    byte_level_ = true;
    for (const char* option : {"add_prefix_space", "trim_offsets", "use_regex"}) fields.flag(option, true);
  } else if (type == "Replace") {
    before(byte_fallback_ || fused_, "ByteFallback or Fuse");
    Fields pattern(fields.required("pattern"), fields.path("pattern"));
    const std::string what = pattern.string("String");
    pattern.done();
    if (what.empty()) fail(ErrorCode::unsupported, "{}: an empty pattern", pattern.where());
    replacements_.emplace_back(what, fields.string("content"));
  } else if (type == "Metaspace") {
    before(byte_fallback_ || fused_ || !mark_.empty(), "others");
    const std::string mark = fields.string("replacement");
    if (mark.empty()) fail(ErrorCode::bad_input, "{}: an empty replacement", fields.where());
    const bool prefix = fields.flag("add_prefix_space", true);
    const std::string scheme = fields.find("prepend_scheme") ? fields.string("prepend_scheme")
                               : prefix                      ? "always"
                                                             : "never";
    fields.flag("split", true);
    replacements_.emplace_back(mark, " ");
    fused_ = true;
    if (scheme != "never") mark_ = mark;
  } else if (type == "ByteFallback") {
    before(fused_ || byte_fallback_, "Fuse or another");
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    before(fused_, "another");
    fused_ = true;
  } else if (type == "Strip") {
    if (!fused_ || strip_count_ > 0)
      fail(ErrorCode::unsupported, "{}: only one Strip after Fuse is supported", fields.where());
    strip_ = fields.string("content");
    const auto number = [&](const char* key) {
      const auto count = whole_number(fields.required(key));
      if (!count) fail(ErrorCode::bad_input, "{}: expected a count", fields.path(key));
      return static_cast<std::size_t>(*count);
    };
    strip_count_ = number("start");
    if (number("stop") != 0) fail(ErrorCode::unsupported, "{}: only 0 is supported", fields.path("stop"));
    if (strip_.empty()) fail(ErrorCode::bad_input, "{}: empty", fields.path("content"));
  } else {
    fail(ErrorCode::unsupported, "{}: {} is not supported", fields.where(), quote(type));
  }
}

std::string Decoder::bytes(std::string_view token) const {
  if (byte_fallback_)
    if (const int byte = fallback_byte(token); byte >= 0) return std::string(1, static_cast<char>(byte));
  std::string text(token);
  for (const auto& [what, with] : replacements_) replace_all(text, what, with);
  return text;
}

void Decoder::push(const Vocabulary& vocabulary, std::int32_t id, State& state, std::string& out) const {
  const std::string& bytes = vocabulary.bytes(id);
  if (byte_level_) {
    state.pending += bytes;
    state.pending.erase(0, state.pending.size() - append_lossy(out, state.pending));
    return;
  }
  const bool first = !std::exchange(state.has_tokens, true);
  if (byte_fallback_ && fallback_byte(*vocabulary.token(id)) >= 0) {
    state.pending += bytes;
    return;
  }
  flush_bytes(state, out);
  if (!first || mark_.empty()) return emit(bytes, state, out);
  std::string text = *vocabulary.token(id);
  replace_all(text, mark_, "");
  emit(text, state, out);
}

void Decoder::finish(State& state, std::string& out) const {
  if (byte_level_ && !state.pending.empty()) out += kReplacement;
  if (!byte_level_) flush_bytes(state, out);
  state = {};
}

// Bytes by fallback are characters all together or not at all.
void Decoder::flush_bytes(State& state, std::string& out) const {
  if (state.pending.empty()) return;
  std::string text = state.pending;
  if (find_invalid_utf8(text) != text.npos) {
    text.clear();
    for (std::size_t i = 0; i < state.pending.size(); ++i) text += kReplacement;
  }
  state.pending.clear();
  emit(text, state, out);
}

void Decoder::emit(std::string_view text, State& state, std::string& out) const {
  while (state.strips && state.stripped < strip_count_ && text.starts_with(strip_)) {
    text.remove_prefix(strip_.size());
    ++state.stripped;
  }
  if (!text.empty()) state.strips = false;
  out += text;
}

}  // namespace lowp::text
