#include "lowp/text/jinja/renderer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "lowp/base/error.h"

namespace lowp::text::jinja {

using Kind = Node::Kind;

void template_error(const std::string& message) { throw Error(ErrorCode::bad_input, message); }

namespace {

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) template_error(fmt::format("cannot compute {} {} {}", a.type(), op, b.type()));
  if (a.is_float() || b.is_float() || op == "/" || op == "**") {
    const double x = a.number(), y = b.number();
    if ((op == "/" || op == "//" || op == "%") && y == 0) template_error("division by zero");
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "/") return x / y;
    if (op == "//") return std::floor(x / y);
    if (op == "%") return x - y * std::floor(x / y);
    const double power = std::pow(x, y);
    if (!a.is_float() && !b.is_float() && y >= 0 && std::fabs(power) < 9e15) return static_cast<std::int64_t>(power);
    return power;
  }
  const std::int64_t x = a.integer(), y = b.integer();
  std::int64_t out = 0;
  bool overflow = false;
  if (op == "+")
    overflow = __builtin_add_overflow(x, y, &out);
  else if (op == "-")
    overflow = __builtin_sub_overflow(x, y, &out);
  else if (op == "*")
    overflow = __builtin_mul_overflow(x, y, &out);
  else if (y == 0)
    template_error("division by zero");
  else if (y == -1)
    overflow = op == "//" && __builtin_sub_overflow(std::int64_t{0}, x, &out);
  else
    out = op == "//" ? floor_divide(x, y) : x - y * floor_divide(x, y);
  if (overflow) template_error("a number in the template is too large");
  return out;
}

// Repeated; empty for a count below 1.
template <typename Container>
Container repeated(const Container& what, std::int64_t count, std::size_t most) {
  Container out;
  if (count > 0 && what.size() > most / static_cast<std::size_t>(count)) template_error("the template makes too much");
  for (; count > 0; --count) out.insert(out.end(), what.begin(), what.end());
  return out;
}

bool ordered(const std::string& op, const Value& a, const Value& b) {
  const auto decide = [&](const auto& x, const auto& y) {
    return op == "<" ? x < y : op == "<=" ? x <= y : op == ">" ? x > y : x >= y;
  };
  if (a.is_string() && b.is_string()) return decide(a.string(), b.string());
  if (a.is_number() && b.is_number())
    return a.is_float() || b.is_float() ? decide(a.number(), b.number()) : decide(a.integer(), b.integer());
  template_error(fmt::format("cannot compare {} {} {}", a.type(), op, b.type()));
}

}  // namespace

std::string Renderer::render(const Node& root, const Dict& variables) try {
  for (const auto& [name, value] : variables.entries) scope_->variables[name] = value;
  std::string out;
  run(root, out);
  return out;
} catch (const Error& e) {
  throw Error(e.code(), fmt::format("template line {}: {}", line_, e.what()));
}

// ---- limits

void Renderer::step(const Node& node, std::size_t cost) {
  if (node.line > 0) line_ = node.line;
  if ((steps_ += cost) > limits_.steps)
    template_error(fmt::format("the template takes more than {} steps", limits_.steps));
}

Value Renderer::text(std::string text) {
  bytes_ += std::min(text.size(), bytes_left());
  if (bytes_ >= limits_.bytes)
    template_error(fmt::format("the template makes more than {} bytes of text", limits_.bytes));
  return Value(std::move(text));
}

Value Renderer::list(List list) {
  items_ += list.size();
  if (items_ > limits_.items)
    template_error(fmt::format("the template makes lists of more than {} items", limits_.items));
  return Value(std::move(list));
}

std::string Renderer::to_string(const Value& value) {
  std::string out = jinja::to_string(value, bytes_left());
  bytes_ += out.size();
  if (bytes_ >= limits_.bytes)
    template_error(fmt::format("the template makes more than {} bytes of text", limits_.bytes));
  return out;
}

// ---- statements

Renderer::Flow Renderer::run(const Node& node, std::string& out) {
  step(node);
  switch (node.kind) {
    case Kind::block:
      for (const NodePtr& part : node.parts)
        if (const Flow flow = run(*part, out); flow != Flow::normal) return flow;
      return Flow::normal;
    case Kind::output:
      out += text(node.text).string();
      return Flow::normal;
    case Kind::print:
      out += to_string(evaluate(*node.parts[0]));
      return Flow::normal;
    case Kind::branch:
      if (evaluate(*node.parts[0]).truth()) return run(*node.parts[1], out);
      return node.parts[2] ? run(*node.parts[2], out) : Flow::normal;
    case Kind::loop:
      return run_loop(node, out);
    case Kind::assign:
      assign(node, evaluate(*node.parts[0]));
      return Flow::normal;
    case Kind::assign_block:
      scope_->variables[node.names[0]] = apply_filters(node.parts[1].get(), Value(run_block(*node.parts[0])));
      return Flow::normal;
    case Kind::filter_block:
      out += to_string(apply_filters(node.parts[0].get(), Value(run_block(*node.parts[1]))));
      return Flow::normal;
    case Kind::macro:
      define_macro(node);
      return Flow::normal;
    case Kind::loop_break:
      return Flow::broken;
    case Kind::loop_continue:
      return Flow::continued;
    default:
      break;
  }
  LOWP_CHECK(false, "a statement of kind {}", static_cast<int>(node.kind));
  return Flow::normal;
}

std::string Renderer::run_block(const Node& node) {
  std::string out;
  run(node, out);
  return out;
}

Renderer::Flow Renderer::run_loop(const Node& node, std::string& out) {
  const std::shared_ptr<Scope> outer = scope_;
  const auto enter = [&] {
    scope_ = std::make_shared<Scope>();
    scope_->parent = outer;
  };
  List items;
  for (Value& item : elements(evaluate(*node.parts[0]))) {
    step(node);
    if (node.parts[1]) {
      enter();
      bind(node.names, item);
      const bool wanted = evaluate(*node.parts[1]).truth();
      scope_ = outer;
      if (!wanted) continue;
    }
    items.push_back(std::move(item));
  }
  if (items.empty()) return node.parts[3] ? run(*node.parts[3], out) : Flow::normal;
  const auto count = static_cast<std::int64_t>(items.size());
  constexpr std::size_t kRound = 10;
  for (std::int64_t i = 0; i < count; ++i) {
    step(node, kRound);
    enter();
    const auto at = [&](std::int64_t k) {
      return k >= 0 && k < count ? items[static_cast<std::size_t>(k)]
                                 : Value(Value::Undefined{"there is no such item"});
    };
    Dict loop;
    loop.entries = {{"index", i + 1},
                    {"index0", i},
                    {"first", i == 0},
                    {"last", i + 1 == count},
                    {"length", count},
                    {"revindex", count - i},
                    {"revindex0", count - i - 1},
                    {"previtem", at(i - 1)},
                    {"nextitem", at(i + 1)}};
    loop.entries.emplace_back("cycle", Function([i](Renderer&, const Arguments& a) {
                                if (a.positional.empty()) template_error("cycle() without items");
                                return a.positional[static_cast<std::size_t>(i) % a.positional.size()];
                              }));
    scope_->variables["loop"] = Value(std::move(loop));
    bind(node.names, items[static_cast<std::size_t>(i)]);
    const Flow flow = run(*node.parts[2], out);
    scope_ = outer;
    if (flow == Flow::broken) break;
  }
  return Flow::normal;
}

// A namespace that holds itself would never be freed.
Renderer::~Renderer() {
  for (auto& [dict, value] : changed_) value.dict().entries.clear();
}

void Renderer::bind(const std::vector<std::string>& names, const Value& value) {
  if (names.size() == 1) {
    scope_->variables[names[0]] = value;
    return;
  }
  const List parts = elements(value);
  if (parts.size() != names.size())
    template_error(fmt::format("expected {} values, found {}", names.size(), parts.size()));
  for (std::size_t i = 0; i < names.size(); ++i) scope_->variables[names[i]] = parts[i];
}

void Renderer::assign(const Node& node, Value value) {
  if (node.text.empty()) return bind(node.names, value);
  const Value object = evaluate_name(node);
  if (!object.is_dict() || !object.dict().is_namespace)
    template_error(fmt::format("{} is no namespace: its attributes cannot be set", quote(node.names[0])));
  changed_.emplace(&object.dict(), object);
  object.dict().set(node.text, std::move(value));
}

void Renderer::define_macro(const Node& node) {
  // Not owning its scope, which holds it; the outermost one lives as long as the rendering.
  const std::weak_ptr<Scope> weak = scope_;
  scope_->variables[node.text] = Function([&node, weak](Renderer& r, const Arguments& given) -> Value {
    const std::shared_ptr<Scope> caller = r.scope_, home = weak.lock();
    auto scope = std::make_shared<Scope>();
    scope->parent = home ? home : caller;
    if (given.positional.size() > node.named.size())
      template_error(fmt::format("macro {} takes {} arguments, found {}", quote(node.text), node.named.size(),
                                 given.positional.size()));
    r.scope_ = scope;
    for (std::size_t i = 0; i < node.named.size(); ++i) {
      const auto& [name, fallback] = node.named[i];
      const Value* value = given.find(i, name);
      scope->variables[name] = value ? *value : fallback ? r.evaluate(*fallback) : Value(Value::Undefined{name});
    }
    const int depth = r.depth_;
    if ((r.depth_ += 8) > r.limits_.depth) template_error("the template is nested too deep");
    std::string out = r.run_block(*node.parts[0]);
    r.depth_ = depth;
    r.scope_ = caller;
    return Value(std::move(out));
  });
}

// ---- expressions

Value Renderer::evaluate(const Node& node) {
  struct Depth {
    int& depth;
    ~Depth() { --depth; }
  } const deeper{++depth_};
  if (depth_ > limits_.depth) template_error("the template is nested too deep");
  step(node);
  const auto part = [&](std::size_t i) { return evaluate(*node.parts[i]); };
  switch (node.kind) {
    case Kind::literal:
      return node.value;
    case Kind::name:
      return evaluate_name(node);
    case Kind::attribute:
      return attribute(part(0), node.text);
    case Kind::index:
      return item(part(0), part(1));
    case Kind::slice:
      return evaluate_slice(node);
    case Kind::call:
      return call(part(0), arguments(node));
    case Kind::filter:
      return filter(node.text, part(0), arguments(node));
    case Kind::test:
      return test(node.text, part(0), arguments(node)) != node.negated;
    case Kind::unary: {
      const Value value = part(0);
      if (node.text == "not") return !value.truth();
      if (node.text == "-") return arithmetic("-", std::int64_t{0}, value);
      return arithmetic("+", std::int64_t{0}, value);
    }
    case Kind::binary:
      return evaluate_binary(node);
    case Kind::compare:
      return evaluate_compare(node);
    case Kind::conditional:
      if (part(1).truth()) return part(0);
      return node.parts[2] ? part(2) : Value(Value::Undefined{"the else of an if"});
    case Kind::list: {
      List items;
      for (const NodePtr& item : node.parts) items.push_back(evaluate(*item));
      return list(std::move(items));
    }
    case Kind::dict: {
      Dict dict;
      for (std::size_t i = 0; i < node.parts.size(); i += 2) {
        const Value key = part(i);
        if (!key.is_string()) template_error("keys of dicts must be texts");
        dict.set(key.string(), part(i + 1));
      }
      return dict;
    }
    default:
      break;
  }
  LOWP_CHECK(false, "an expression of kind {}", static_cast<int>(node.kind));
  return {};
}

Value Renderer::evaluate_name(const Node& node) {
  const std::string& name = node.kind == Kind::name ? node.text : node.names[0];
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get())
    if (const auto at = scope->variables.find(name); at != scope->variables.end()) return at->second;
  if (const auto at = functions().find(name); at != functions().end()) return at->second;
  return Value::Undefined{name};
}

Value Renderer::evaluate_binary(const Node& node) {
  const Value a = evaluate(*node.parts[0]);
  const std::string& op = node.text;
  if (op == "and") return a.truth() ? evaluate(*node.parts[1]) : a;
  if (op == "or") return a.truth() ? a : evaluate(*node.parts[1]);
  const Value b = evaluate(*node.parts[1]);
  if (op == "~") return text(to_string(a) + to_string(b));
  if (op == "+" && a.is_string() && b.is_string()) return text(a.string() + b.string());
  if (op == "+" && a.is_list() && b.is_list()) {
    List both = a.list();
    both.insert(both.end(), b.list().begin(), b.list().end());
    return list(std::move(both));
  }
  if (op == "*") {
    const bool swapped = a.is_integer();
    const Value &what = swapped ? b : a, &count = swapped ? a : b;
    if (count.is_integer() && what.is_string()) return text(repeated(what.string(), count.integer(), bytes_left()));
    if (count.is_integer() && what.is_list())
      return list(repeated(what.list(), count.integer(), limits_.items - items_));
  }
  return arithmetic(op, a, b);
}

Value Renderer::evaluate_compare(const Node& node) {
  Value left = evaluate(*node.parts[0]);
  for (std::size_t i = 0; i < node.names.size(); ++i) {
    Value right = evaluate(*node.parts[i + 1]);
    const std::string& op = node.names[i];
    const bool holds = op == "=="       ? left == right
                       : op == "!="     ? !(left == right)
                       : op == "in"     ? contains(right, left)
                       : op == "not in" ? !contains(right, left)
                                        : ordered(op, left, right);
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

bool Renderer::contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) template_error(fmt::format("cannot look for {} in a text", item.type()));
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_dict()) return item.is_string() && container.dict().find(item.string());
  for (const Value& element : elements(container)) {
    if (++steps_ > limits_.steps) template_error("the template takes too many steps");
    if (element == item) return true;
  }
  return false;
}

Value Renderer::evaluate_slice(const Node& node) {
  const Value object = evaluate(*node.parts[0]);
  std::optional<std::int64_t> bounds[3];
  for (std::size_t i = 0; i < 3; ++i)
    if (node.parts[i + 1]) {
      const Value bound = evaluate(*node.parts[i + 1]);
      if (bound.is_none()) continue;
      if (!bound.is_integer()) template_error(fmt::format("a slice by {}", bound.type()));
      bounds[i] = bound.integer();
    }
  const std::int64_t stride = bounds[2].value_or(1);
  if (stride == 0) template_error("a slice with a step of 0");
  const bool is_text = object.is_string();
  const std::vector<std::string_view> letters = is_text ? characters(object.string()) : std::vector<std::string_view>{};
  const List items = is_text ? List{} : elements(object);
  const auto count = static_cast<std::int64_t>(is_text ? letters.size() : items.size());
  const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? count : count - 1;
  const auto bound = [&](std::size_t i, std::int64_t fallback) {
    if (!bounds[i]) return fallback;
    const std::int64_t b = *bounds[i] < 0 ? *bounds[i] + count : *bounds[i];
    return std::clamp(b, low, high);
  };
  const std::int64_t begin = bound(0, stride > 0 ? low : high), end = bound(1, stride > 0 ? high : low);
  std::string out_text;
  List out;
  for (std::int64_t i = begin; stride > 0 ? i < end : i > end;) {
    if (is_text)
      out_text += letters[static_cast<std::size_t>(i)];
    else
      out.push_back(items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  return is_text ? text(std::move(out_text)) : list(std::move(out));
}

Arguments Renderer::arguments(const Node& node) {
  Arguments arguments;
  for (std::size_t i = 1; i < node.parts.size(); ++i) arguments.positional.push_back(evaluate(*node.parts[i]));
  for (const auto& [name, value] : node.named) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

Value Renderer::apply_filters(const Node* node, const Value& value) {
  if (!node) return value;
  return filter(node->text, apply_filters(node->parts[0].get(), value), arguments(*node));
}

Value Renderer::call(const Value& function, const Arguments& arguments) {
  if (function.is_undefined()) template_error(fmt::format("{} is undefined", quote(function.undefined_name())));
  if (!function.is_function()) template_error(fmt::format("a value of type {} cannot be called", function.type()));
  return function.function()(*this, arguments);
}

Value Renderer::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) template_error(fmt::format("{} is undefined", quote(object.undefined_name())));
  if (object.is_dict() && object.dict().is_namespace) {
    const Value* found = object.dict().find(name);
    return found ? *found : Value(Value::Undefined{name});
  }
  if (auto found = method(object, name)) return *found;
  if (object.is_dict())
    if (const Value* found = object.dict().find(name)) return *found;
  return Value::Undefined{name};
}

Value Renderer::item(const Value& object, const Value& key) {
  if (object.is_undefined()) template_error(fmt::format("{} is undefined", quote(object.undefined_name())));
  if (object.is_dict() && key.is_string()) {
    if (const Value* found = object.dict().find(key.string())) return *found;
    if (auto found = method(object, key.string())) return *found;
    return Value::Undefined{key.string()};
  }
  if (key.is_string()) return attribute(object, key.string());
  if (!key.is_integer()) return Value::Undefined{"an item"};
  const auto find = [&](std::size_t size) -> std::optional<std::size_t> {
    const auto count = static_cast<std::int64_t>(size);
    const std::int64_t i = key.integer() < 0 ? key.integer() + count : key.integer();
    if (i < 0 || i >= count) return std::nullopt;
    return static_cast<std::size_t>(i);
  };
  if (object.is_list()) {
    const auto i = find(object.list().size());
    return i ? object.list()[*i] : Value(Value::Undefined{"an item of a list"});
  }
  if (object.is_string()) {
    const auto letters = characters(object.string());
    const auto i = find(letters.size());
    return i ? text(std::string(letters[*i])) : Value(Value::Undefined{"a character of a text"});
  }
  return Value::Undefined{"an item"};
}

List Renderer::elements(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_list()) return value.list();
  List out;
  if (value.is_dict()) {
    for (const auto& entry : value.dict().entries) out.emplace_back(entry.first);
  } else if (value.is_string()) {
    for (const std::string_view letter : characters(value.string())) out.emplace_back(std::string(letter));
  } else {
    template_error(fmt::format("a value of type {} cannot be looped over", value.type()));
  }
  return list(std::move(out)).list();
}

}  // namespace lowp::text::jinja
