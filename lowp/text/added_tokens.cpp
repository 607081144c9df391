#include "lowp/text/added_tokens.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/fields.h"
#include "lowp/text/pretokenizer.h"

namespace lowp::text {
namespace {

// The first byte of the character that ends before text[end].
std::size_t last_character(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (text[end] & 0xC0) == 0x80);
  return end;
}

bool is_word_at(std::string_view text, std::size_t at) { return is_word_character(next_utf8(text, at).code); }

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin == 0 || !is_word_at(text, last_character(text, begin))) &&
         (end == text.size() || !is_word_at(text, end));
}

// Where the white space before `begin` starts, not before `floor`.
std::size_t space_before(std::string_view text, std::size_t begin, std::size_t floor) {
  while (begin > floor) {
    const std::size_t at = last_character(text, begin);
    if (!is_white_space(next_utf8(text, at).code)) break;
    begin = at;
  }
  return begin;
}

std::size_t space_after(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const Utf8Step step = next_utf8(text, end);
    if (!is_white_space(step.code)) break;
    end += step.length;
  }
  return end;
}

}  // namespace

std::vector<AddedToken> parse_added_tokens(const Json& list, const std::string& where, Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  int index = 0;
  for (const Json& element : list) {
    Fields fields(element, fmt::format("{}[{}]", where, index++));
    AddedToken token;
    token.id = fields.token_id("id");
    token.content = fields.string("content");
    if (token.content.empty()) fail(ErrorCode::bad_input, "{}: an empty token", fields.path("content"));
    token.single_word = fields.flag("single_word");
    token.lstrip = fields.flag("lstrip");
    token.rstrip = fields.flag("rstrip");
    token.normalized = fields.flag("normalized");
    token.special = fields.flag("special");
    fields.done();
    vocabulary.add_verbatim(token.content, token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void AddedTokenFinder::add(const AddedToken& token, std::string_view content) {
  may_start_[static_cast<unsigned char>(content[0])] = true;
  int node = 0;
  for (const char c : content) {
    const auto [at, is_new] =
        nodes_[static_cast<std::size_t>(node)].next.try_emplace(c, static_cast<int>(nodes_.size()));
    node = at->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[static_cast<std::size_t>(node)].token = static_cast<int>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenFinder::Match AddedTokenFinder::longest_at(std::string_view text, std::size_t at) const {
  Match match;
  const Node* node = &nodes_[0];
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto next = node->next.find(text[i]);
    if (next == node->next.end()) break;
    node = &nodes_[static_cast<std::size_t>(next->second)];
    if (node->token >= 0) match = {node->token, i + 1 - at};
  }
  return match;
}

void AddedTokenFinder::split(std::string_view text, const Allowed& allowed, std::vector<Part>& parts) const {
  parts.clear();
  std::size_t done = 0;  // the text before is in parts
  for (std::size_t at = tokens_.empty() ? text.size() : 0; at < text.size();) {
    const Match match = may_start_[static_cast<unsigned char>(text[at])] ? longest_at(text, at) : Match{};
    if (match.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match.token)];
    std::size_t begin = at, end = at + match.length;
    at = end;
    if (!allowed(token, text.substr(begin, end - begin))) continue;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    // White space that a token took can hold another token; that one is then empty of text but still there.
    if (token.lstrip) begin = std::max(space_before(text, begin, std::min(begin, done)), done);
    if (token.rstrip) end = space_after(text, end);
    if (done < begin) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(std::min(begin, end), end - std::min(begin, end)), token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
}

}  // namespace lowp::text
