#include "lowp/text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <optional>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"

namespace lowp::text {
namespace {

constexpr std::size_t kScanLimit = 32;  // bytes; beyond, a queue is faster than scans
constexpr std::uint32_t kNone = ~std::uint32_t{0};
constexpr std::string_view kMark = "\xE2\x96\x81";  // "▁"

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

// Refuses what lowp does not do; what is spelled out as its default is fine.
void refuse_options(Fields& model) {
  const Json* dropout = model.find("dropout");
  if (dropout && *dropout != 0.0)
    fail(ErrorCode::unsupported, "{}: dropout makes encoding random", model.path("dropout"));
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.find(affix) && !model.string(affix).empty())
      fail(ErrorCode::unsupported, "{}: only '' is supported", model.path(affix));
}

// Whether some token has a mark after another character.
bool joins_at_mark(const Vocabulary& vocabulary) {
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(vocabulary.size()); ++id) {
    const std::string* token = vocabulary.token(id);
    for (std::size_t at = token ? token->find(kMark) : std::string::npos; at != std::string::npos;
         at = token->find(kMark, at + kMark.size()))
      if (at > 0 && !std::string_view(*token).substr(0, at).ends_with(kMark)) return true;
  }
  return false;
}

// "a b", or ["a", "b"]; the views are into the value.
std::pair<std::string_view, std::string_view> read_merge(const Json& merge, const std::function<std::string()>& where) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const auto space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos)
      return {text.substr(0, space), text.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  fail(ErrorCode::bad_input, "{}: a merge is two tokens, as \"a b\" or [\"a\", \"b\"]", where());
}

Vocabulary read_vocabulary(Fields& model) {
  const Json& object = model.object("vocab");
  Vocabulary vocabulary(object.size(), model.path("vocab"));
  for (const auto& [token, id] : object.items())
    vocabulary.add(token, read_token_id(id, model.path("vocab") + ": " + quote(token)));
  return vocabulary;
}

MergeTable read_merges(Fields& model, const Vocabulary& vocabulary) {
  const Json& list = model.array("merges");
  MergeTable merges(list.size());
  std::uint32_t rank = 0;
  std::string merged;
  const auto where = [&] { return fmt::format("{}[{}]", model.path("merges"), rank); };
  for (const Json& merge : list) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = read_merge(merge, where);
    merged.assign(left).append(right);
    const auto id_of = [&](std::string_view token) {
      if (const auto id = vocabulary.find(token)) return *id;
      fail(ErrorCode::bad_input, "{}: the vocabulary has no token {}", where(), quote(token));
    };
    const std::int32_t left_id = id_of(left), right_id = id_of(right);
    merges.insert(left_id, right_id, {.rank = rank, .id = id_of(merged)});
    ++rank;
  }
  return merges;
}

}  // namespace

MergeTable::MergeTable(std::size_t count) : slots_(std::bit_ceil(2 * count + 2)) {}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  const std::size_t mask = slots_.size() - 1;
  std::uint64_t hash = pair * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  std::size_t slot = hash & mask;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t pair = pair_of(left, right);
  slots_[slot_of(pair)] = {pair, merge};
}

Merge MergeTable::find(std::int32_t left, std::int32_t right) const {
  return slots_[slot_of(pair_of(left, right))].merge;
}

Bpe::Bpe(Vocabulary vocabulary, MergeTable merges, bool byte_level)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), byte_level_(byte_level) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_byte_character(token, static_cast<unsigned char>(byte));
    byte_ids_[static_cast<std::size_t>(byte)] = vocabulary_.find(token).value_or(-1);
  }
}

Bpe Bpe::parse(const Json& json, const std::string& where, bool byte_level) {
  Fields model(json, where);
  // Files from before 2022 leave the type out.
  if (const std::string type = model.find("type") ? model.string("type") : "BPE"; type != "BPE")
    fail(ErrorCode::unsupported, "{}: only BPE and Unigram are supported, found {}", model.path("type"), quote(type));
  refuse_options(model);
  Vocabulary vocabulary = read_vocabulary(model);
  MergeTable merges = read_merges(model, vocabulary);
  Bpe bpe(std::move(vocabulary), std::move(merges), byte_level);
  bpe.read_characters(model);
  bpe.words_first_ = model.flag("ignore_merges", false);
  if (bpe.words_first_) {
    const auto size = static_cast<std::int32_t>(bpe.vocabulary_.size());
    for (std::int32_t id = 0; id < size; ++id)
      if (const std::string* token = bpe.vocabulary_.token(id))
        if (auto bytes = byte_level ? spelled_bytes(*token) : *token) bpe.words_.emplace(*std::move(bytes), id);
  }
  model.done();
  return bpe;
}

void Bpe::read_characters(Fields& model) {
  const bool fallback = model.flag("byte_fallback", false);
  fuse_unknown_ = model.flag("fuse_unk", false);
  const std::string unknown = model.find("unk_token") ? model.string("unk_token") : "";
  if (byte_level_) {
    // Every byte is a token (encode() insists), so nothing is unknown.
    if (fallback) fail(ErrorCode::unsupported, "{}: byte-level BPE needs none", model.path("byte_fallback"));
    return;
  }
  if (fallback) fallback_ = ByteFallback(vocabulary_);
  if (!unknown.empty()) {
    const auto id = vocabulary_.find(unknown);
    if (!id) fail(ErrorCode::bad_input, "{}: the vocabulary has no token {}", model.path("unk_token"), quote(unknown));
    unknown_ = *id;
  }
  splits_at_mark_ = vocabulary_.find(kMark) && !joins_at_mark(vocabulary_);
}

void Bpe::encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const {
  // With ignore_merges the whole word counts.
  while (splits_at_mark_ && !words_first_) {
    std::size_t at = 0;
    while (word.substr(at).starts_with(kMark)) at += kMark.size();
    at = word.find(kMark, at);
    if (at == word.npos) break;
    encode_piece(word.substr(0, at), scratch, out);
    word.remove_prefix(at);
  }
  encode_piece(word, scratch, out);
}

void Bpe::encode_piece(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const {
  if (byte_level_ && word.size() == 1 && !words_first_) {
    if (const std::int32_t id = byte_ids_[static_cast<unsigned char>(word[0])]; id >= 0) return out.push_back(id);
  }
  BpeScratch::CachedWord* cached = nullptr;
  if (word.size() <= std::tuple_size_v<decltype(cached->word)>) {
    cached = &scratch.cache_[StringHash{}(word) % BpeScratch::kCacheEntries];
    if (word == std::string_view(cached->word.data(), cached->length)) {
      out.insert(out.end(), cached->ids.begin(), cached->ids.begin() + cached->count);
      return;
    }
  }
  merge_word(word, scratch);
  const auto& ids = scratch.ids_;
  out.insert(out.end(), ids.begin(), ids.end());
  if (cached && ids.size() <= cached->ids.size()) {
    cached->length = static_cast<std::uint8_t>(word.size());
    cached->count = static_cast<std::uint8_t>(ids.size());
    std::copy(word.begin(), word.end(), cached->word.begin());
    std::copy(ids.begin(), ids.end(), cached->ids.begin());
  }
}

// Leaves the tokens in scratch.ids_.
void Bpe::merge_word(std::string_view word, BpeScratch& scratch) const {
  auto& ids = scratch.ids_;
  if (words_first_) {
    if (const auto at = words_.find(word); at != words_.end()) return ids.assign(1, at->second);
  }
  ids.clear();
  byte_level_ ? append_bytes(word, ids) : append_characters(word, ids);
  ids.size() <= kScanLimit ? merge_by_scan(scratch) : merge_by_queue(scratch);
}

void Bpe::append_bytes(std::string_view word, std::vector<std::int32_t>& ids) const {
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    ids.push_back(byte_ids_[byte]);
    if (ids.back() < 0) fail(ErrorCode::unsupported, "the tokenizer has no token for the byte {:#04x}", byte);
  }
}

void Bpe::append_characters(std::string_view word, std::vector<std::int32_t>& ids) const {
  bool after_unknown = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, next_utf8(word, at).length);
    at += character.size();
    const auto id = vocabulary_.find(character);
    const bool known = id || fallback_.append(character, ids);
    if (id) ids.push_back(*id);
    if (!known && unknown_ >= 0 && !(after_unknown && fuse_unknown_)) ids.push_back(unknown_);
    after_unknown = !known;
  }
}

void Bpe::merge_by_scan(BpeScratch& scratch) const {
  auto& ids = scratch.ids_;
  auto& merges = scratch.merges_;  // merges[i]: of ids[i] and ids[i + 1]
  merges.clear();
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) merges.push_back(merges_.find(ids[i], ids[i + 1]));
  while (!merges.empty()) {
    const auto best = std::min_element(merges.begin(), merges.end(), [](auto& a, auto& b) { return a.rank < b.rank; });
    if (best->rank == Merge::kNever) break;
    const auto i = best - merges.begin();
    ids[static_cast<std::size_t>(i)] = best->id;
    ids.erase(ids.begin() + i + 1);
    merges.erase(best);
    const auto refresh = [&](std::size_t pair) { merges[pair] = merges_.find(ids[pair], ids[pair + 1]); };
    if (i > 0) refresh(static_cast<std::size_t>(i) - 1);
    if (static_cast<std::size_t>(i) < merges.size()) refresh(static_cast<std::size_t>(i));
  }
}

// The same in n log n: a queue of (rank, position) over a linked list. Entries are not removed when their pair is gone;
// they no longer agree with the list then.
void Bpe::merge_by_queue(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& queue = scratch.queue_;
  const auto count = static_cast<std::uint32_t>(scratch.ids_.size());
  symbols.clear();
  queue.clear();
  for (std::uint32_t i = 0; i < count; ++i)
    symbols.push_back({scratch.ids_[i], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1});
  const auto merge_at = [&](std::uint32_t at) { return merges_.find(symbols[at].id, symbols[symbols[at].next].id); };
  const auto entry = [](std::uint32_t rank, std::uint32_t at) { return std::uint64_t{rank} << 32 | at; };
  const auto push = [&](std::uint32_t at) {
    if (const Merge merge = merge_at(at); merge.rank != Merge::kNever) {
      queue.push_back(entry(merge.rank, at));
      return true;
    }
    return false;
  };
  for (std::uint32_t i = 0; i + 1 < count; ++i) push(i);
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto rank = static_cast<std::uint32_t>(queue.back() >> 32), at = static_cast<std::uint32_t>(queue.back());
    queue.pop_back();
    if (symbols[at].id < 0 || symbols[at].next == kNone) continue;
    const Merge merge = merge_at(at);
    if (merge.rank != rank) continue;
    auto& right = symbols[symbols[at].next];
    symbols[at].id = merge.id;
    symbols[at].next = right.next;
    right.id = -1;
    if (right.next != kNone) {
      symbols[right.next].previous = at;
      if (push(at)) std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
    if (symbols[at].previous != kNone && push(symbols[at].previous))
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
  }
  scratch.ids_.clear();
  for (const auto& symbol : symbols)
    if (symbol.id >= 0) scratch.ids_.push_back(symbol.id);
}

}  // namespace lowp::text
