// Tokens that are looked for in the text before anything else happens to it: "<|im_start|>".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/text/normalizer.h"
#include "lowp/text/vocabulary.h"

namespace lowp::text {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it, too
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for in the normalized text, else in the raw text
  bool special = false;      // can be left out of decoded text
};

/// The "added_tokens" of a tokenizer.json, entered into the vocabulary. Throws Error(bad_input).
std::vector<AddedToken> parse_added_tokens(const Json& list, const std::string& where, Vocabulary& vocabulary);

/// Finds added tokens in a text: at each place the longest, from left to right.
class AddedTokenFinder {
 public:
  /// A part of the text: an added token, or what is between two (id -1).
  struct Part {
    std::string_view text;
    std::int32_t id = -1;
  };

  /// Adds a token to look for, as `content`: it may differ from the token's own where the text is normalized.
  void add(const AddedToken& token, std::string_view content);

  /// Whether a token may be taken where the text has it.
  using Allowed = std::function<bool(const AddedToken& token, std::string_view where)>;
  /// Replaces `parts` by those of a text.
  void split(std::string_view text, const Allowed& allowed, std::vector<Part>& parts) const;

 private:
  struct Node {
    int token = -1;
    std::map<char, int> next;
  };
  struct Match {
    int token = -1;
    std::size_t length = 0;
  };
  Match longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};  // a trie of the contents
  bool may_start_[256] = {};
};

}  // namespace lowp::text
