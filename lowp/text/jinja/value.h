// Values of a template: Python's, as far as chat templates need them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::text::jinja {

class Value;
class Renderer;

using List = std::vector<Value>;

/// Entries in the order in which they came; a key twice is one entry.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  bool is_namespace = false;  // {% set ns.x = ... %} may change it
  const Value* find(std::string_view key) const;
  void set(const std::string& key, Value value);
};

struct Arguments {
  List positional;
  std::vector<std::pair<std::string, Value>> named;
  /// By position or name; nullptr if not given.
  const Value* find(std::size_t position, std::string_view name) const;
};

using Function = std::function<Value(Renderer& renderer, const Arguments& arguments)>;

class Value {
 public:
  struct Undefined {
    std::string what;  // the name that has no value
  };
  using String = std::shared_ptr<const std::string>;

  Value() : value_(Undefined{}) {}
  Value(Undefined undefined) : value_(std::move(undefined)) {}
  Value(std::nullptr_t) : value_(nullptr) {}
  Value(bool b) : value_(b) {}
  Value(std::int64_t i) : value_(i) {}
  Value(double d) : value_(d) {}
  Value(std::string text) : value_(std::make_shared<const std::string>(std::move(text))) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(List list) : value_(std::make_shared<List>(std::move(list))) {}
  Value(Dict dict) : value_(std::make_shared<Dict>(std::move(dict))) {}
  Value(Function function) : value_(std::make_shared<Function>(std::move(function))) {}
  static Value from_json(const Json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(value_); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_float() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_integer() || is_float() || is_bool(); }
  bool is_string() const { return std::holds_alternative<String>(value_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<List>>(value_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Dict>>(value_); }
  bool is_function() const { return std::holds_alternative<std::shared_ptr<Function>>(value_); }

  // Each only if it is one.
  const std::string& undefined_name() const { return std::get<Undefined>(value_).what; }
  const std::string& string() const { return *std::get<String>(value_); }
  const List& list() const { return *std::get<std::shared_ptr<List>>(value_); }
  Dict& dict() const { return *std::get<std::shared_ptr<Dict>>(value_); }
  const Function& function() const { return *std::get<std::shared_ptr<Function>>(value_); }
  std::int64_t integer() const;  // of a bool, too
  double number() const;

  /// Python's truth, equality, type name.
  bool truth() const;
  bool operator==(const Value& other) const;
  const char* type() const;

 private:
  std::variant<Undefined, std::nullptr_t, bool, std::int64_t, double, String, std::shared_ptr<List>,
               std::shared_ptr<Dict>, std::shared_ptr<Function>>
      value_;
};

/// Python's str(), and json.dumps with ensure_ascii false. `most`: throws Error once the text is longer.
std::string to_string(const Value& value, std::size_t most);
struct JsonStyle {
  int indent = -1;  // -1: on one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ensure_ascii = false;
};
std::string to_json(const Value& value, const JsonStyle& style, std::size_t most);

/// Python's repr of a float: the shortest text that reads back the same.
std::string float_text(double value);

}  // namespace lowp::text::jinja
