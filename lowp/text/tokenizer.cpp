#include "lowp/text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <variant>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/json.h"
#include "lowp/base/utf8.h"
#include "lowp/text/added_tokens.h"
#include "lowp/text/bpe.h"
#include "lowp/text/fields.h"
#include "lowp/text/normalizer.h"
#include "lowp/text/post_processor.h"
#include "lowp/text/pretokenizer.h"
#include "lowp/text/unigram.h"

namespace lowp::text {
namespace {

constexpr std::size_t kMaxText = std::size_t{1} << 30;  // bytes in one call; positions are 32 bits wide

const Json kAbsent = nullptr;
const Json& or_null(const Json* value) { return value ? *value : kAbsent; }

}  // namespace

class Tokenizer::Impl {
 public:
  Impl(Fields& file);

  void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& out) const;
  const Vocabulary& vocabulary() const {
    return std::visit([](const auto& model) -> const Vocabulary& { return model.vocabulary(); }, model_);
  }
  const Decoder& decoder() const { return decoder_; }
  bool is_special(std::int32_t id) const { return std::binary_search(special_.begin(), special_.end(), id); }
  std::span<const std::int32_t> special_ids() const { return special_; }
  const PostProcessor& post_processor() const { return post_processor_; }

 private:
  using Model = std::variant<Bpe, Unigram>;
  // What one call of encode() needs; kept for the next, since the cache of words fills up with use.
  struct Scratch {
    Regex::Scratch regex;
    BpeScratch bpe;
    UnigramScratch unigram;
    std::vector<AddedTokenFinder::Part> raw_parts, parts;
    std::string normalized;
  };

  static Model parse_model(const Json& json, const std::string& where, bool byte_level);
  Vocabulary& vocabulary() {
    return std::visit([](auto& model) -> Vocabulary& { return model.vocabulary(); }, model_);
  }
  void read_added_tokens(const Json& list, const std::string& where);
  void encode_word(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& out) const;
  void encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
              std::vector<std::int32_t>& out) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  Model model_;
  AddedTokenFinder raw_tokens_, normalized_tokens_;  // looked for before and after normalization
  std::vector<std::int32_t> special_;                // sorted
  PostProcessor post_processor_;
  mutable std::mutex mutex_;  // of:
  mutable std::vector<std::unique_ptr<Scratch>> free_;
};

Tokenizer::Impl::Impl(Fields& file)
    : normalizer_(Normalizer::parse(or_null(file.find("normalizer")), file.path("normalizer"))),
      pre_tokenizer_(PreTokenizer::parse(or_null(file.find("pre_tokenizer")), file.path("pre_tokenizer"))),
      decoder_(Decoder::parse(or_null(file.find("decoder")), file.path("decoder"))),
      model_(parse_model(file.object("model"), file.path("model"), pre_tokenizer_.is_byte_level())) {
  if (pre_tokenizer_.is_byte_level() != decoder_.is_byte_level())
    fail(ErrorCode::unsupported, "{}: pre_tokenizer and decoder: ByteLevel in one of them only", file.where());
  if (file.find("added_tokens")) read_added_tokens(file.array("added_tokens"), file.path("added_tokens"));
  post_processor_ =
      PostProcessor::parse(or_null(file.find("post_processor")), file.path("post_processor"), vocabulary());
  if (!decoder_.is_byte_level()) vocabulary().respell([&](std::string_view token) { return decoder_.bytes(token); });
  file.find("truncation"), file.find("padding");
  if (file.find("version") && file.string("version") != "1.0")
    fail(ErrorCode::unsupported, "{}: expected '1.0', found {}", file.path("version"), quote(file.string("version")));
  file.done();
}

Tokenizer::Impl::Model Tokenizer::Impl::parse_model(const Json& json, const std::string& where, bool byte_level) {
  Fields fields(json, where);
  if (!fields.find("type") || fields.string("type") != "Unigram") return Bpe::parse(json, where, byte_level);
  if (byte_level) fail(ErrorCode::unsupported, "{}: byte-level Unigram is not supported", where);
  return Unigram::parse(json, where);
}

void Tokenizer::Impl::encode_word(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& out) const {
  if (const auto* bpe = std::get_if<Bpe>(&model_))
    bpe->encode(word, scratch.bpe, out);
  else
    std::get<Unigram>(model_).encode(word, scratch.unigram, out);
}

void Tokenizer::Impl::read_added_tokens(const Json& list, const std::string& where) {
  for (const AddedToken& token : parse_added_tokens(list, where, vocabulary())) {
    std::string buffer;
    if (token.normalized)
      normalized_tokens_.add(token, normalizer_.apply(token.content, buffer));
    else
      raw_tokens_.add(token, token.content);
    if (token.special) special_.push_back(token.id);
  }
  std::sort(special_.begin(), special_.end());
}

void Tokenizer::Impl::encode(std::string_view text, const EncodeOptions& options,
                             std::vector<std::int32_t>& out) const {
  std::unique_ptr<Scratch> scratch;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      scratch = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!scratch) scratch = std::make_unique<Scratch>();
  encode(text, options, *scratch, out);
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(scratch));
}

void Tokenizer::Impl::encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
                             std::vector<std::int32_t>& out) const {
  const auto unbroken = [&](const AddedToken& token, std::string_view where) {
    if (!token.special) return true;
    const auto begin = static_cast<std::size_t>(where.data() - text.data());
    const auto next = std::upper_bound(options.breaks.begin(), options.breaks.end(), begin);
    return options.parse_special && (next == options.breaks.end() || *next >= begin + where.size());
  };
  const PreTokenizer::Sink sink = [&](std::string_view word) { encode_word(word, scratch, out); };
  raw_tokens_.split(text, unbroken, scratch.raw_parts);
  for (const auto& raw : scratch.raw_parts) {
    if (raw.id >= 0) {
      out.push_back(raw.id);
      continue;
    }
    const std::string_view normalized = normalizer_.apply(raw.text, scratch.normalized);
    // Offsets are lost here: around a break no special token is looked for.
    normalized_tokens_.split(
        normalized, [&](const AddedToken& token, std::string_view) { return unbroken(token, raw.text); },
        scratch.parts);
    for (const auto& part : scratch.parts) {
      if (part.id >= 0)
        out.push_back(part.id);
      else
        pre_tokenizer_.split(part.text, raw.text.data() == text.data() && part.text.data() == normalized.data(),
                             scratch.regex, sink);
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_file(const std::string& path) { return from_json(read_text(path), path); }

Tokenizer Tokenizer::from_json(std::string_view text, const std::string& where) {
  return from_parsed(parse_json(text, where), where);
}

Tokenizer Tokenizer::from_parsed(const Json& json, const std::string& where) {
  Fields file(json, where);
  return Tokenizer(std::make_unique<const Impl>(file));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view utf8, const EncodeOptions& options) const {
  if (utf8.size() > kMaxText)
    fail(ErrorCode::unsupported, "text of {} bytes, at most {} can be encoded at once", utf8.size(), kMaxText);
  if (const auto at = find_invalid_utf8(utf8); at != utf8.npos)
    fail(ErrorCode::bad_input, "text is not UTF-8: byte {:#04x} at offset {}", static_cast<unsigned char>(utf8[at]),
         at);
  std::vector<std::int32_t> ids;
  ids.reserve(utf8.size() / 4 + 8);
  if (options.add_special_tokens) ids.assign(prefix().begin(), prefix().end());
  impl_->encode(utf8, options, ids);
  if (options.add_special_tokens) ids.insert(ids.end(), suffix().begin(), suffix().end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string text;
  Decoder::State state;
  for (const std::int32_t id : ids) decode_token(id, skip_special, state, text);
  decode_end(state, text);
  return text;
}

void Tokenizer::decode_token(std::int32_t id, bool skip_special, Decoder::State& state, std::string& out) const {
  bytes(id);  // throws for an id without a token
  if (!skip_special || !is_special(id)) impl_->decoder().push(impl_->vocabulary(), id, state, out);
}

void Tokenizer::decode_end(Decoder::State& state, std::string& out) const { impl_->decoder().finish(state, out); }

const std::string& Tokenizer::bytes(std::int32_t id) const {
  if (!token(id)) fail(ErrorCode::usage, "no token has the id {}; the tokenizer has ids below {}", id, vocab_size());
  return impl_->vocabulary().bytes(id);
}

std::size_t Tokenizer::vocab_size() const { return impl_->vocabulary().size(); }
std::optional<std::int32_t> Tokenizer::id(std::string_view token) const { return impl_->vocabulary().find(token); }
const std::string* Tokenizer::token(std::int32_t id) const { return impl_->vocabulary().token(id); }
bool Tokenizer::is_special(std::int32_t id) const { return impl_->is_special(id); }
std::span<const std::int32_t> Tokenizer::special_ids() const { return impl_->special_ids(); }
std::span<const std::int32_t> Tokenizer::prefix() const { return impl_->post_processor().prefix; }
std::span<const std::int32_t> Tokenizer::suffix() const { return impl_->post_processor().suffix; }

}  // namespace lowp::text
