#include "lowp/base/json.h"

#include <unordered_set>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp {
namespace {

// Builds the value through the library's own DOM builder and adds what it lacks: a depth limit (its recursion-free lexer
// would accept any) and refusal of duplicate keys (it silently keeps one).
class StrictBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  StrictBuilder(Json& root, const std::string& where, JsonLimits limits)
      : Base(root, true), where_(where), limits_(limits) {}

  bool start_object(std::size_t size) {
    enter();
    keys_.emplace_back();
    return Base::start_object(size);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(std::size_t size) {
    enter();
    return Base::start_array(size);
  }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) fail(ErrorCode::bad_input, "{}: duplicate JSON key '{}'", where_, name);
    return Base::key(name);
  }

 private:
  void enter() {
    if (++depth_ > limits_.depth) fail(ErrorCode::bad_input, "{}: JSON nested deeper than {}", where_, limits_.depth);
  }

  const std::string& where_;
  JsonLimits limits_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, JsonLimits limits) {
  if (text.size() > limits.bytes)
    fail(ErrorCode::bad_input, "{}: JSON of {} bytes, at most {} accepted", where, text.size(), limits.bytes);
  Json root;
  try {
    StrictBuilder builder(root, where, limits);
    Json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const Json::exception& error) {
    fail(ErrorCode::bad_input, "{}: not valid JSON: {}", where, error.what());
  }
  return root;
}

Json read_json(const std::string& path, JsonLimits limits) { return parse_json(read_text(path, limits.bytes), path, limits); }

}  // namespace lowp
