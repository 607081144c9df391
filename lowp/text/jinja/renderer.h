// A template's tree and its variables as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lowp/text/jinja/ast.h"
#include "lowp/text/jinja/value.h"

namespace lowp::text::jinja {

/// What a rendering may cost.
struct Limits {
  std::size_t steps = 1'000'000;              // nodes walked; a round of a loop is ten
  std::size_t bytes = std::size_t{64} << 20;  // of all texts made on the way
  std::size_t items = 300'000;                // of all lists made on the way
  int depth = 600;                            // of nodes within nodes, macros included
};

/// One rendering. Knows no files, no modules, nothing outside its variables; every text and list that it makes counts
/// against the limits. Throws Error(bad_input) for what a template does wrong, for its raise_exception(), and beyond a
/// limit.
class Renderer {
 public:
  Renderer(const Limits& limits, std::time_t now) : limits_(limits), now_(now) {}
  ~Renderer();
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;

  std::string render(const Node& root, const Dict& variables);

  // ---- for filters, tests and methods
  /// A text that counts against the limits.
  Value text(std::string text);
  /// A list that does.
  Value list(List list);
  /// Room for texts that is left.
  std::size_t bytes_left() const { return limits_.bytes - bytes_; }
  std::string to_string(const Value& value);
  Value call(const Value& function, const Arguments& arguments);
  Value filter(const std::string& name, const Value& value, const Arguments& arguments);
  bool test(const std::string& name, const Value& value, const Arguments& arguments);
  /// object.name or object['name']; undefined if there is none.
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  /// The elements of what can be looped over: lists, keys of dicts, characters of texts.
  List elements(const Value& value);
  std::time_t now() const { return now_; }

 private:
  struct Scope {
    std::shared_ptr<Scope> parent;
    std::map<std::string, Value, std::less<>> variables;
  };
  enum class Flow { normal, broken, continued };

  void step(const Node& node, std::size_t cost = 1);
  Flow run(const Node& node, std::string& out);
  Flow run_loop(const Node& node, std::string& out);
  std::string run_block(const Node& node);
  void define_macro(const Node& node);
  Value evaluate(const Node& node);
  Value evaluate_name(const Node& node);
  Value evaluate_binary(const Node& node);
  Value evaluate_compare(const Node& node);
  Value evaluate_slice(const Node& node);
  Value apply_filters(const Node* node, const Value& value);
  Arguments arguments(const Node& node);
  void assign(const Node& node, Value value);
  void bind(const std::vector<std::string>& names, const Value& value);
  bool contains(const Value& container, const Value& item);

  const Limits limits_;
  const std::time_t now_;
  std::shared_ptr<Scope> scope_ = std::make_shared<Scope>();
  std::map<const Dict*, Value> changed_;  // namespaces that were assigned to: they may hold themselves
  std::size_t steps_ = 0, bytes_ = 0, items_ = 0;
  int depth_ = 0, line_ = 0;
};

/// range, namespace, raise_exception, strftime_now, dict.
const std::map<std::string, Function, std::less<>>& functions();

/// A method of a text or dict by its name, bound to it; nullopt if there is none.
std::optional<Value> method(const Value& object, std::string_view name);

/// The characters of a text.
std::vector<std::string_view> characters(std::string_view text);
/// Without white space, or the characters of `set`, at its ends.
std::string_view strip(std::string_view text, const std::string* set, bool left, bool right);

[[noreturn]] void template_error(const std::string& message);

}  // namespace lowp::text::jinja
