#include "lowp/server/constraint.h"

#include <algorithm>

#include "lowp/server/json_schema.h"

namespace lowp::server {
namespace {

constexpr std::size_t kMostRecent = 8;
constexpr std::size_t kMostMasks = std::size_t{16} << 20;  // bytes, of one grammar

}  // namespace

TokenBytes::TokenBytes(const text::Tokenizer& tokenizer, std::vector<std::int32_t> end_ids)
    : tokenizer_(tokenizer), end_ids_(std::move(end_ids)), words_((tokenizer.vocab_size() + 31) / 32) {
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(tokenizer.vocab_size()); ++id)
    if (tokenizer.token(id) && !tokenizer.is_special(id) && !tokenizer.bytes(id).empty())
      entries_.push_back({&tokenizer.bytes(id), id, 0});
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return *a.bytes < *b.bytes; });
  for (std::size_t i = 1; i < entries_.size(); ++i) {
    const std::string &a = *entries_[i - 1].bytes, &b = *entries_[i].bytes;
    entries_[i].shared = static_cast<std::size_t>(
        std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())), b.begin())
            .first -
        a.begin());
  }
}

const std::string& TokenBytes::bytes(std::int32_t id) const {
  static const std::string kNothing;
  return tokenizer_.token(id) && !tokenizer_.is_special(id) ? tokenizer_.bytes(id) : kNothing;
}

const std::vector<std::uint32_t>& Constraint::allowed(Matcher::Position at) {
  const auto known = masks_.find(at);
  if (known != masks_.end()) return known->second;
  if (masks_.size() * tokens_->words() * sizeof(std::uint32_t) > kMostMasks) masks_.clear();
  std::vector<std::uint32_t>& words = masks_[at];
  words.resize(tokens_->words());
  const auto allow = [&](std::int32_t id) { words[static_cast<std::size_t>(id) / 32] |= 1u << (id % 32); };
  std::vector<Matcher::Position> path = {at};  // path[n]: after n bytes of the token
  for (const TokenBytes::Entry& entry : tokens_->entries()) {
    if (entry.shared + 1 < path.size()) path.resize(entry.shared + 1);
    while (path.back() != Matcher::kDead && path.size() <= entry.bytes->size())
      path.push_back(matcher_.step(path.back(), static_cast<std::uint8_t>((*entry.bytes)[path.size() - 1])));
    if (path.back() != Matcher::kDead) allow(entry.id);
  }
  if (matcher_.complete(at))
    for (const std::int32_t id : tokens_->end_ids()) allow(id);
  return words;
}

Matcher::Position Constraint::after(Matcher::Position at, std::int32_t token) {
  for (const char c : tokens_->bytes(token)) {
    if (at == Matcher::kDead) break;
    at = matcher_.step(at, static_cast<std::uint8_t>(c));
  }
  return at;
}

void ConstraintMask::allowed(std::span<std::uint32_t> words) {
  if (!from_.empty()) return std::fill(words.begin(), words.end(), ~0u);
  if (at_ == Matcher::kDead) return;
  const std::vector<std::uint32_t>& from = constraint_->allowed(at_);
  std::copy_n(from.begin(), std::min(from.size(), words.size()), words.begin());
}

void ConstraintMask::accept(std::int32_t token) {
  if (from_.empty()) {
    at_ = constraint_->after(at_, token);
    return;
  }
  before_ += constraint_->tokens().bytes(token);
  if (before_.find(from_) != std::string::npos)
    from_.clear();
  else if (before_.size() > from_.size())
    before_.erase(0, before_.size() - from_.size());
}

std::shared_ptr<Constraint> Constraints::of_schema(const Json& schema, const std::string& where) {
  const std::string key = schema.dump();
  {
    const std::lock_guard lock(mutex_);
    for (auto at = recent_.begin(); at != recent_.end(); ++at)
      if (at->first == key) {
        recent_.splice(recent_.begin(), recent_, at);
        return at->second;
      }
  }
  auto made =
      std::make_shared<Constraint>(schema.is_null() ? any_object_grammar() : json_grammar(schema, where), tokens_);
  const std::lock_guard lock(mutex_);
  recent_.emplace_front(key, made);
  if (recent_.size() > kMostRecent) recent_.pop_back();
  return made;
}

}  // namespace lowp::server
