#include "lowp/text/unigram.h"

#include <algorithm>
#include <limits>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"

namespace lowp::text {
namespace {

constexpr double kUnknownPenalty = 10;  // below the least likely token

std::uint64_t key(std::uint32_t node, char byte) { return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte); }

}  // namespace

Unigram Unigram::parse(const Json& json, const std::string& where) {
  Fields model(json, where);
  model.string("type");
  const Json& list = model.array("vocab");
  Unigram result{Vocabulary(list.size(), model.path("vocab"))};
  double least = std::numeric_limits<double>::infinity();
  for (const Json& entry : list) {
    const auto id = static_cast<std::int32_t>(result.scores_.size());
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
      fail(ErrorCode::bad_input, "{}[{}]: expected a token and its score", model.path("vocab"), id);
    const auto& token = entry[0].get_ref<const std::string&>();
    result.vocabulary_.add_verbatim(token, id);
    result.scores_.push_back(entry[1].get<double>());
    least = std::min(least, result.scores_.back());
    if (!token.empty()) result.insert(token, id);
  }
  if (model.find("unk_id")) {
    result.unknown_ = model.token_id("unk_id");
    if (!result.vocabulary_.token(result.unknown_))
      fail(ErrorCode::bad_input, "{}: no token has the id {}", model.path("unk_id"), result.unknown_);
  }
  result.unknown_score_ = least - kUnknownPenalty;
  if (model.flag("byte_fallback", false)) result.fallback_ = ByteFallback(result.vocabulary_);
  model.done();
  return result;
}

void Unigram::insert(std::string_view token, std::int32_t id) {
  std::uint32_t node = 0;
  for (const char c : token) {
    const auto [at, is_new] = children_.try_emplace(key(node, c), static_cast<std::uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(-1);
    node = at->second;
  }
  ends_[node] = id;
}

void Unigram::encode(std::string_view word, UnigramScratch& scratch, std::vector<std::int32_t>& out) const {
  auto& best = scratch.best_;
  best.assign(word.size() + 1, {});
  const auto offer = [&](std::size_t from, std::size_t to, double score, std::int32_t id) {
    if (best[to].id < 0 || score > best[to].score) best[to] = {score, from, id};
  };
  for (std::size_t from = 0; from < word.size();) {
    const std::size_t length = next_utf8(word, from).length;
    bool known = false;
    std::uint32_t node = 0;
    for (std::size_t to = from; to < word.size();) {
      const auto child = children_.find(key(node, word[to]));
      if (child == children_.end()) break;
      node = child->second;
      ++to;
      if (const std::int32_t id = ends_[node]; id >= 0) {
        offer(from, to, best[from].score + scores_[static_cast<std::size_t>(id)], id);
        known = known || to - from == length;
      }
    }
    if (!known) {
      if (unknown_ < 0)
        fail(ErrorCode::unsupported, "the tokenizer has no token for {}, nor one for the unknown",
             quote(word.substr(from, length)));
      offer(from, from + length, best[from].score + unknown_score_, unknown_);
    }
    from += length;
  }
  // Back along the best path; unknown characters in a row are one.
  auto& path = scratch.path_;
  path.clear();
  for (std::size_t to = word.size(); to > 0; to = best[to].from) path.push_back({0, best[to].from, best[to].id});
  std::reverse(path.begin(), path.end());
  for (std::size_t i = 0; i < path.size();) {
    if (path[i].id != unknown_) {
      out.push_back(path[i++].id);
      continue;
    }
    const std::size_t begin = path[i].from;
    while (i < path.size() && path[i].id == unknown_) ++i;
    encode_unknown(word.substr(begin, (i < path.size() ? path[i].from : word.size()) - begin), out);
  }
}

void Unigram::encode_unknown(std::string_view text, std::vector<std::int32_t>& out) const {
  if (!fallback_.append(text, out)) out.push_back(unknown_);
}

}  // namespace lowp::text
