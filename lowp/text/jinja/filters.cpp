// Filters, as Jinja has them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <unordered_set>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/text/jinja/library.h"

namespace lowp::text::jinja {
namespace {

Value length(Renderer& r, const Value& value, const Arguments&) {
  if (value.is_string()) return static_cast<std::int64_t>(characters(value.string()).size());
  if (value.is_dict()) return static_cast<std::int64_t>(value.dict().entries.size());
  return static_cast<std::int64_t>(r.elements(value).size());
}

Value or_default(Renderer&, const Value& value, const Arguments& a) {
  const Value* fallback = a.find(0, "default_value");
  const bool missing = value.is_undefined() || (flag_or(a.find(1, "boolean"), false) && !value.truth());
  return missing ? fallback ? *fallback : Value("") : value;
}

Value join(Renderer& r, const Value& value, const Arguments& a) {
  const Value *by = a.find(0, "d"), *attribute = a.find(1, "attribute");
  const std::string separator = by ? r.to_string(*by) : "";
  std::string out;
  bool first = true;
  for (const Value& item : r.elements(value)) {
    if (!std::exchange(first, false)) out += separator;
    out += r.to_string(attribute ? r.item(item, *attribute) : item);
    if (out.size() > r.bytes_left()) template_error("the template makes too much text");
  }
  return r.text(std::move(out));
}

// attribute "a.b" of an item
Value deep_attribute(Renderer& r, Value item, const Value& path) {
  if (!path.is_string()) return r.item(item, path);
  std::string_view rest = path.string();
  for (;;) {
    const std::size_t dot = rest.find('.');
    item = r.item(item, Value(std::string(rest.substr(0, dot))));
    if (dot == std::string_view::npos) return item;
    rest.remove_prefix(dot + 1);
  }
}

Arguments without_first(const Arguments& a, std::size_t count) {
  Arguments rest = a;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, rest.positional.size())));
  return rest;
}

Value map_items(Renderer& r, const Value& value, const Arguments& a) {
  List out;
  for (const Value& item : r.elements(value)) {
    if (const Value* attribute = a.find(99, "attribute")) {
      Value found = deep_attribute(r, item, *attribute);
      const Value* fallback = a.find(99, "default");
      out.push_back(found.is_undefined() && fallback ? *fallback : std::move(found));
    } else {
      const std::string& name = string_of(a.find(0, "filter"), "map");
      out.push_back(r.filter(name, item, without_first(a, 1)));
    }
  }
  return r.list(std::move(out));
}

// select, reject, selectattr, rejectattr
Value selected(Renderer& r, const Value& value, const Arguments& a, bool by_attribute, bool keep) {
  List out;
  const std::size_t first = by_attribute ? 1 : 0;
  for (const Value& item : r.elements(value)) {
    const Value subject =
        by_attribute ? deep_attribute(r, item, a.positional.empty() ? Value() : a.positional[0]) : item;
    const bool passes = a.positional.size() > first
                            ? r.test(string_of(&a.positional[first], "select"), subject, without_first(a, first + 1))
                            : subject.truth();
    if (passes == keep) out.push_back(item);
  }
  return r.list(std::move(out));
}

bool less(Renderer& r, const Value& a, const Value& b, bool case_sensitive) {
  if (a.is_string() && b.is_string())
    return case_sensitive ? a.string() < b.string() : lower(a.string()) < lower(b.string());
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.is_list() && b.is_list()) {
    for (std::size_t i = 0; i < std::min(a.list().size(), b.list().size()); ++i) {
      if (less(r, a.list()[i], b.list()[i], case_sensitive)) return true;
      if (less(r, b.list()[i], a.list()[i], case_sensitive)) return false;
    }
    return a.list().size() < b.list().size();
  }
  template_error(fmt::format("cannot sort {} and {}", a.type(), b.type()));
}

Value sorted(Renderer& r, const Value& value, const Arguments& a) {
  List items = r.elements(value);
  const bool reverse = flag_or(a.find(0, "reverse"), false), cases = flag_or(a.find(1, "case_sensitive"), false);
  const Value* attribute = a.find(2, "attribute");
  const auto key = [&](const Value& item) { return attribute ? deep_attribute(r, item, *attribute) : item; };
  std::stable_sort(items.begin(), items.end(), [&](const Value& x, const Value& y) {
    return reverse ? less(r, key(y), key(x), cases) : less(r, key(x), key(y), cases);
  });
  return r.list(std::move(items));
}

Value dict_sorted(Renderer& r, const Value& value, const Arguments& a) {
  if (!value.is_dict()) template_error("dictsort: expected a dict");
  const bool by_value = a.find(1, "by") && string_of(a.find(1, "by"), "dictsort") == "value";
  const bool cases = flag_or(a.find(0, "case_sensitive"), false), reverse = flag_or(a.find(2, "reverse"), false);
  List items = pairs(value.dict());
  std::stable_sort(items.begin(), items.end(), [&](const Value& x, const Value& y) {
    const Value &p = x.list()[by_value ? 1 : 0], &q = y.list()[by_value ? 1 : 0];
    return reverse ? less(r, q, p, cases) : less(r, p, q, cases);
  });
  return r.list(std::move(items));
}

Value unique(Renderer& r, const Value& value, const Arguments&) {
  List out;
  for (Value& item : r.elements(value))
    if (std::none_of(out.begin(), out.end(), [&](const Value& seen) { return seen == item; }))
      out.push_back(std::move(item));
  return r.list(std::move(out));
}

Value tojson(Renderer& r, const Value& value, const Arguments& a) {
  JsonStyle style;
  if (const Value* ascii = a.find(0, "ensure_ascii")) style.ensure_ascii = ascii->truth();
  style.indent = static_cast<int>(std::clamp<std::int64_t>(integer_or(a.find(1, "indent"), -1), -1, 16));
  if (const Value* separators = a.find(2, "separators");
      separators && separators->is_list() && separators->list().size() == 2) {
    style.item_separator = string_of(&separators->list()[0], "tojson");
    style.key_separator = string_of(&separators->list()[1], "tojson");
  }
  if (const Value* sort = a.find(3, "sort_keys")) style.sort_keys = sort->truth();
  return r.text(to_json(value, style, r.bytes_left()));
}

Value indent(Renderer& r, const Value& value, const Arguments& a) {
  const Value* by = a.find(0, "width");
  const std::string space =
      by && by->is_string()
          ? by->string()
          : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(integer_or(by, 4), 0, 100)), ' ');
  const bool first = flag_or(a.find(1, "first"), false), blank = flag_or(a.find(2, "blank"), false);
  std::string out, all = r.to_string(value);
  std::size_t line = 0;
  for (std::size_t at = 0; at <= all.size(); ++line) {
    const std::size_t end = std::min(all.find('\n', at), all.size());
    if (line > 0) out += '\n';
    if ((line > 0 ? (blank || end > at) : first)) out += space;
    out += all.substr(at, end - at);
    at = end + 1;
  }
  return r.text(std::move(out));
}

Value to_integer(Renderer&, const Value& value, const Arguments& a) {
  if (value.is_float() && std::fabs(value.number()) < 9e18) return static_cast<std::int64_t>(value.number());
  if (value.is_number() && !value.is_float()) return value.integer();
  if (value.is_string()) {
    const std::string_view text = strip(value.string(), nullptr, true, true);
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  return integer_or(a.find(0, "default"), 0);
}

Value to_float(Renderer&, const Value& value, const Arguments& a) {
  if (value.is_number()) return value.number();
  if (value.is_string()) {
    const std::string_view text = strip(value.string(), nullptr, true, true);
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  const Value* fallback = a.find(0, "default");
  return fallback ? *fallback : Value(0.0);
}

Value rounded(Renderer&, const Value& value, const Arguments& a) {
  if (!value.is_number()) template_error(fmt::format("round: expected a number, found {}", value.type()));
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<std::int64_t>(integer_or(a.find(0, "precision"), 0), -15, 15)));
  const Value* method = a.find(1, "method");
  const std::string how = method ? string_of(method, "round") : "common";
  const double x = value.number() * scale;
  return (how == "floor" ? std::floor(x) : how == "ceil" ? std::ceil(x) : std::nearbyint(x)) / scale;
}

Value extreme(Renderer& r, const Value& value, bool largest) {
  const List items = r.elements(value);
  if (items.empty()) return Value::Undefined{"an item of an empty list"};
  const Value* best = &items[0];
  for (const Value& item : items)
    if (largest ? less(r, *best, item, true) : less(r, item, *best, true)) best = &item;
  return *best;
}

Value sum(Renderer& r, const Value& value, const Arguments& a) {
  const Value* attribute = a.find(0, "attribute");
  double total = 0;
  bool real = false;
  for (const Value& item : r.elements(value)) {
    const Value number = attribute ? deep_attribute(r, item, *attribute) : item;
    if (!number.is_number()) template_error("sum: expected numbers");
    total += number.number();
    real |= number.is_float();
  }
  return real ? Value(total) : Value(static_cast<std::int64_t>(total));
}

Value reversed(Renderer& r, const Value& value, const Arguments&) {
  if (value.is_string()) {
    std::string out;
    const auto letters = characters(value.string());
    for (auto letter = letters.rbegin(); letter != letters.rend(); ++letter) out += *letter;
    return r.text(std::move(out));
  }
  List items = r.elements(value);
  std::reverse(items.begin(), items.end());
  return r.list(std::move(items));
}

Value escape(Renderer& r, const Value& value, const Arguments&) {
  std::string out;
  for (const char c : r.to_string(value)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&#34;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return r.text(std::move(out));
}

Value end_of(Renderer& r, const Value& value, bool last) {
  const List items = r.elements(value);
  if (items.empty()) return Value::Undefined{"an item of an empty list"};
  return last ? items.back() : items.front();
}

const std::map<std::string_view, Method> kFilters = {
    {"length", length},
    {"count", length},
    {"default", or_default},
    {"d", or_default},
    {"join", join},
    {"map", map_items},
    {"select", [](Renderer& r, const Value& v, const Arguments& a) { return selected(r, v, a, false, true); }},
    {"reject", [](Renderer& r, const Value& v, const Arguments& a) { return selected(r, v, a, false, false); }},
    {"selectattr", [](Renderer& r, const Value& v, const Arguments& a) { return selected(r, v, a, true, true); }},
    {"rejectattr", [](Renderer& r, const Value& v, const Arguments& a) { return selected(r, v, a, true, false); }},
    {"sort", sorted},
    {"dictsort", dict_sorted},
    {"unique", unique},
    {"tojson", tojson},
    {"indent", indent},
    {"int", to_integer},
    {"float", to_float},
    {"round", rounded},
    {"sum", sum},
    {"reverse", reversed},
    {"escape", escape},
    {"e", escape},
    {"min", [](Renderer& r, const Value& v, const Arguments&) { return extreme(r, v, false); }},
    {"max", [](Renderer& r, const Value& v, const Arguments&) { return extreme(r, v, true); }},
    {"first", [](Renderer& r, const Value& v, const Arguments&) { return end_of(r, v, false); }},
    {"last", [](Renderer& r, const Value& v, const Arguments&) { return end_of(r, v, true); }},
    {"list", [](Renderer& r, const Value& v, const Arguments&) { return r.list(r.elements(v)); }},
    {"string", [](Renderer& r, const Value& v, const Arguments&) { return Value(r.to_string(v)); }},
    {"safe", [](Renderer&, const Value& v, const Arguments&) { return v; }},
    {"abs",
     [](Renderer&, const Value& v, const Arguments&) {
       if (v.is_float()) return Value(std::fabs(v.number()));
       if (!v.is_number() || v.integer() == INT64_MIN) template_error("abs: expected a number");
       return Value(std::abs(v.integer()));
     }},
    {"items",
     [](Renderer& r, const Value& v, const Arguments&) {
       if (v.is_undefined()) return Value(List{});
       if (!v.is_dict()) template_error("items: expected a dict");
       return r.list(pairs(v.dict()));
     }},
    {"attr", [](Renderer& r, const Value& v,
                const Arguments& a) { return r.item(v, a.positional.empty() ? Value() : a.positional[0]); }},
    {"trim",
     [](Renderer& r, const Value& v, const Arguments& a) {
       const Value* set = a.find(0, "chars");
       const std::string all = r.to_string(v);
       return r.text(std::string(strip(all, set && !set->is_none() ? &string_of(set, "trim") : nullptr, true, true)));
     }},
    {"lower", [](Renderer& r, const Value& v, const Arguments&) { return r.text(lower(r.to_string(v))); }},
    {"upper", [](Renderer& r, const Value& v, const Arguments&) { return r.text(upper(r.to_string(v))); }},
    {"title", [](Renderer& r, const Value& v, const Arguments&) { return r.text(title(r.to_string(v))); }},
    {"capitalize", [](Renderer& r, const Value& v, const Arguments&) { return r.text(capitalize(r.to_string(v))); }},
    {"replace",
     [](Renderer& r, const Value& v, const Arguments& a) {
       return r.text(replace_all(r.to_string(v), string_of(a.find(0, "old"), "replace"),
                                 string_of(a.find(1, "new"), "replace"), integer_or(a.find(2, "count"), -1),
                                 r.bytes_left()));
     }},
};

}  // namespace

Value Renderer::filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto at = kFilters.find(name);
  if (at == kFilters.end()) throw Error(ErrorCode::unsupported, fmt::format("there is no filter {}", quote(name)));
  return at->second(*this, value, arguments);
}

}  // namespace lowp::text::jinja
