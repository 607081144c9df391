// Reading the parts of a tokenizer.json so that nothing in it goes unnoticed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::text {

/// Ids are int32 and index arrays.
inline constexpr std::int64_t kLargestId = (std::int64_t{1} << 31) - 2;

/// A JSON object, and which of its keys were asked for. Errors name `where`: the file and the path inside it. A value
/// null counts as absent.
class Fields {
 public:
  /// Throws Error(bad_input) unless `object` is one.
  Fields(const Json& object, std::string where);

  const std::string& where() const { return where_; }
  /// The name of a key or element below this object, for messages.
  std::string path(std::string_view key) const { return where_ + "." + std::string(key); }

  /// nullptr if absent.
  const Json* find(std::string_view key);
  /// These throw Error(bad_input) if the value is of another kind, or absent where there is no fallback.
  const Json& required(std::string_view key);
  const Json& array(std::string_view key);
  const Json& object(std::string_view key);
  bool flag(std::string_view key);
  bool flag(std::string_view key, bool fallback);
  std::string string(std::string_view key);
  std::int32_t token_id(std::string_view key);

  /// Throws Error(unsupported) if the object has a key that was not asked for.
  void done() const;

 private:
  const Json& object_;
  std::string where_;
  std::vector<std::string> asked_;
};

/// The id in `value`; Error(bad_input) unless it is a whole number from 0 to kLargestId.
std::int32_t read_token_id(const Json& value, const std::string& where);

/// The parts of a pipeline in order, Sequences flattened; `list` is the key under which a Sequence keeps its elements.
/// Calls visit(type, fields) for each part, then done(); no calls for null.
template <typename Visit>
void visit_components(const Json& value, const std::string& where, std::string_view list, const Visit& visit) {
  if (value.is_null()) return;
  Fields fields(value, where);
  const std::string type = fields.string("type");
  if (type == "Sequence") {
    int index = 0;
    for (const Json& element : fields.array(list))
      visit_components(element, fields.path(list) + "[" + std::to_string(index++) + "]", list, visit);
  } else {
    visit(type, fields);
  }
  fields.done();
}

}  // namespace lowp::text
