#include "lowp/base/json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp {
namespace {

// Builds the value from the parser's events. The library's own builder knows no depth limit, silently keeps one of two
// equal keys, and searches an ordered object linearly for each new key, which is quadratic in a header of many tensors.
class StrictBuilder final : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(const std::string& where, JsonLimits limits) : where_(where), limits_(limits) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // has no spelling in JSON text

  bool start_object(std::size_t) override { return enter({.is_object = true}); }
  bool start_array(std::size_t) override { return enter({.is_object = false}); }
  bool key(string_t& name) override {
    open_.back().members.emplace_back(std::move(name), nullptr);
    return true;
  }
  bool end_object() override {
    Members members = std::move(open_.back().members);
    open_.pop_back();
    refuse_duplicates(members);
    Json object = Json::object();
    auto& out = object.get_ref<Json::object_t&>();
    out.reserve(members.size());  // growing would copy the values, since the keys of an ordered object are const
    for (auto& [name, value] : members) out.emplace_back(std::move(name), std::move(value));
    return add(std::move(object));
  }
  bool end_array() override {
    Json array = std::move(open_.back().items);
    open_.pop_back();
    return add(std::move(array));
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    // Without "[json.exception...] " and without the last token: that is the file's bytes, any number of them.
    std::string_view reason = error.what();
    reason.remove_prefix(std::min(reason.find("] ") + 2, reason.size()));
    reason = reason.substr(0, std::min(reason.find("; last read"), std::size_t{200}));
    fail(ErrorCode::bad_input, "{}: not valid JSON: {}", where_, reason);
  }

 private:
  using Members = std::vector<std::pair<std::string, Json>>;
  struct Container {
    bool is_object;
    Members members = {};
    Json::array_t items = {};
  };

  bool enter(Container container) {
    if (open_.size() >= static_cast<std::size_t>(limits_.depth))
      fail(ErrorCode::bad_input, "{}: JSON nested deeper than {}", where_, limits_.depth);
    open_.push_back(std::move(container));
    return true;
  }

  bool add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().members.back().second = std::move(value);
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  // By sorting: a hash table could be driven into its worst case by a hostile file.
  void refuse_duplicates(const Members& members) const {
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const auto& member : members) names.push_back(member.first);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail(ErrorCode::bad_input, "{}: duplicate JSON key {}", where_, quote(*twice));
  }

  const std::string& where_;
  JsonLimits limits_;
  Json root_;
  std::vector<Container> open_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, JsonLimits limits) {
  if (text.size() > limits.bytes)
    fail(ErrorCode::bad_input, "{}: JSON of {} bytes, at most {} accepted", where, text.size(), limits.bytes);
  // The parser takes a NUL for the end of the text and would ignore what follows.
  if (const auto nul = text.find('\0'); nul != text.npos)
    fail(ErrorCode::bad_input, "{}: not valid JSON: NUL at byte {}", where, nul);
  StrictBuilder builder(where, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json read_json(const std::string& path, JsonLimits limits) {
  return parse_json(read_text(path, limits.bytes), path, limits);
}

std::string quote(std::string_view text) {
  std::size_t end = std::min(text.size(), std::size_t{200});
  if (end < text.size())
    while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not within a UTF-8 sequence
  std::string result = "'";
  for (const char c : text.substr(0, end)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return result + (end < text.size() ? "...'" : "'");
}

}  // namespace lowp
