// What templates may call: functions, filters, tests and methods, as Jinja and Python have them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"
#include "lowp/text/jinja/renderer.h"

namespace lowp::text::jinja {
namespace {

constexpr std::int64_t kMostInRange = 100'000;

std::int64_t integer_or(const Value* value, std::int64_t fallback) {
  if (!value || value->is_none()) return fallback;
  if (!value->is_integer()) template_error(fmt::format("expected a whole number, found {}", value->type()));
  return value->integer();
}

bool flag_or(const Value* value, bool fallback) { return value ? value->truth() : fallback; }

const std::string& string_of(const Value* value, const char* what) {
  if (!value || !value->is_string())
    template_error(fmt::format("{}: expected a text, found {}", what, value ? value->type() : "nothing"));
  return value->string();
}

// ---- texts

std::string mapped(std::string_view text, char (*change)(char)) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), change);
  return out;
}
char lower_case(char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }
char upper_case(char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); }
std::string lower(std::string_view text) { return mapped(text, lower_case); }
std::string upper(std::string_view text) { return mapped(text, upper_case); }

std::string capitalize(std::string_view text) {
  std::string out = lower(text);
  if (!out.empty()) out[0] = upper_case(out[0]);
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (const char c : text) {
    out += inside ? lower_case(c) : upper_case(c);
    inside = lower_case(c) != upper_case(c) || (static_cast<unsigned char>(c) & 0x80) != 0;
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t most,
                        std::size_t room) {
  std::string out;
  std::size_t at = 0;
  for (; most != 0; --most) {
    const std::size_t found = from.empty() ? at : text.find(from, at);
    if (found == std::string_view::npos || found > text.size()) break;
    if (out.size() > room) template_error("the template makes too much text");
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (!from.empty()) continue;
    if (at >= text.size()) return out;
    const std::size_t length = next_utf8(text, at).length;
    out += text.substr(at, length);
    at += length;
  }
  out += text.substr(std::min(at, text.size()));
  return out;
}

List split(const std::string& text, const Value* separator, std::int64_t most) {
  List parts;
  if (!separator || separator->is_none()) {
    std::string_view rest = strip(text, nullptr, true, false);
    while (!rest.empty()) {
      if (most == static_cast<std::int64_t>(parts.size())) {
        parts.emplace_back(std::string(strip(rest, nullptr, false, true)));
        break;
      }
      std::size_t end = 0;
      while (end < rest.size()) {
        const Utf8Step step = next_utf8(rest, end);
        if (is_white_space(step.code)) break;
        end += step.length;
      }
      parts.emplace_back(std::string(rest.substr(0, end)));
      rest = strip(rest.substr(end), nullptr, true, false);
    }
    return parts;
  }
  const std::string& by = string_of(separator, "split");
  if (by.empty()) template_error("split: the separator is empty");
  std::size_t at = 0;
  for (std::size_t found;
       most != static_cast<std::int64_t>(parts.size()) && (found = text.find(by, at)) != std::string::npos;
       at = found + by.size())
    parts.emplace_back(text.substr(at, found - at));
  parts.emplace_back(text.substr(at));
  return parts;
}

List split_from_right(const std::string& text, const Value* separator, std::int64_t most) {
  if (most < 0) return split(text, separator, -1);
  const std::string& by = string_of(separator, "rsplit");
  if (by.empty()) template_error("rsplit: the separator is empty");
  List parts;
  std::size_t end = text.size();
  for (; most > 0; --most) {
    if (end < by.size()) break;
    const std::size_t found = text.rfind(by, end - by.size());
    if (found == std::string::npos) break;
    parts.emplace_back(text.substr(found + by.size(), end - found - by.size()));
    end = found;
  }
  parts.emplace_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

bool affix(const std::string& text, const Value* what, bool front) {
  const auto has = [&](const Value& affix) {
    const std::string& part = string_of(&affix, front ? "startswith" : "endswith");
    return front ? text.starts_with(part) : text.ends_with(part);
  };
  if (what && what->is_list()) return std::any_of(what->list().begin(), what->list().end(), has);
  return what ? has(*what) : has(Value());
}

using Method = Value (*)(Renderer& r, const Value& self, const Arguments& a);

Value stripped(Renderer& r, const Value& self, const Arguments& a, bool left, bool right) {
  const Value* set = a.find(0, "chars");
  return r.text(
      std::string(strip(self.string(), set && !set->is_none() ? &string_of(set, "strip") : nullptr, left, right)));
}

std::int64_t position(const std::string& text, std::size_t found) {
  return found == std::string::npos
             ? -1
             : static_cast<std::int64_t>(characters(std::string_view(text).substr(0, found)).size());
}

const std::map<std::string_view, Method> kTextMethods = {
    {"strip", [](Renderer& r, const Value& s, const Arguments& a) { return stripped(r, s, a, true, true); }},
    {"lstrip", [](Renderer& r, const Value& s, const Arguments& a) { return stripped(r, s, a, true, false); }},
    {"rstrip", [](Renderer& r, const Value& s, const Arguments& a) { return stripped(r, s, a, false, true); }},
    {"lower", [](Renderer& r, const Value& s, const Arguments&) { return r.text(lower(s.string())); }},
    {"upper", [](Renderer& r, const Value& s, const Arguments&) { return r.text(upper(s.string())); }},
    {"title", [](Renderer& r, const Value& s, const Arguments&) { return r.text(title(s.string())); }},
    {"capitalize", [](Renderer& r, const Value& s, const Arguments&) { return r.text(capitalize(s.string())); }},
    {"startswith",
     [](Renderer&, const Value& s, const Arguments& a) { return Value(affix(s.string(), a.find(0, "prefix"), true)); }},
    {"endswith", [](Renderer&, const Value& s,
                    const Arguments& a) { return Value(affix(s.string(), a.find(0, "suffix"), false)); }},
    {"split",
     [](Renderer& r, const Value& s, const Arguments& a) {
       return r.list(split(s.string(), a.find(0, "sep"), integer_or(a.find(1, "maxsplit"), -1)));
     }},
    {"rsplit",
     [](Renderer& r, const Value& s, const Arguments& a) {
       return r.list(split_from_right(s.string(), a.find(0, "sep"), integer_or(a.find(1, "maxsplit"), -1)));
     }},
    {"replace",
     [](Renderer& r, const Value& s, const Arguments& a) {
       return r.text(replace_all(s.string(), string_of(a.find(0, "old"), "replace"),
                                 string_of(a.find(1, "new"), "replace"), integer_or(a.find(2, "count"), -1),
                                 r.bytes_left()));
     }},
    {"find",
     [](Renderer&, const Value& s, const Arguments& a) {
       return Value(position(s.string(), s.string().find(string_of(a.find(0, "sub"), "find"))));
     }},
    {"rfind",
     [](Renderer&, const Value& s, const Arguments& a) {
       return Value(position(s.string(), s.string().rfind(string_of(a.find(0, "sub"), "rfind"))));
     }},
    {"count",
     [](Renderer&, const Value& s, const Arguments& a) {
       const std::string& what = string_of(a.find(0, "sub"), "count");
       std::int64_t count = 0;
       if (what.empty()) return Value(static_cast<std::int64_t>(characters(s.string()).size()) + 1);
       for (std::size_t at = s.string().find(what); at != std::string::npos;
            at = s.string().find(what, at + what.size()))
         ++count;
       return Value(count);
     }},
    {"join",
     [](Renderer& r, const Value& s, const Arguments& a) {
       std::string out;
       bool first = true;
       for (const Value& part : r.elements(a.positional.empty() ? Value() : a.positional[0])) {
         if (!std::exchange(first, false)) out += s.string();
         out += string_of(&part, "join");
         if (out.size() > r.bytes_left()) template_error("the template makes too much text");
       }
       return r.text(std::move(out));
     }},
    {"isdigit",
     [](Renderer&, const Value& s, const Arguments&) {
       return Value(!s.string().empty() && s.string().find_first_not_of("0123456789") == std::string::npos);
     }},
};

List pairs(const Dict& dict) {
  List items;
  for (const auto& [key, value] : dict.entries) items.emplace_back(List{Value(key), value});
  return items;
}

const std::map<std::string_view, Method> kDictMethods = {
    {"get",
     [](Renderer&, const Value& s, const Arguments& a) {
       const Value* key = a.find(0, "key");
       const Value* found = key && key->is_string() ? s.dict().find(key->string()) : nullptr;
       const Value* fallback = a.find(1, "default");
       return found ? *found : fallback ? *fallback : Value(nullptr);
     }},
    {"items", [](Renderer& r, const Value& s, const Arguments&) { return r.list(pairs(s.dict())); }},
    {"keys", [](Renderer& r, const Value& s, const Arguments&) { return r.list(r.elements(s)); }},
    {"values",
     [](Renderer& r, const Value& s, const Arguments&) {
       List values;
       for (const auto& entry : s.dict().entries) values.push_back(entry.second);
       return r.list(std::move(values));
     }},
};

// ---- filters

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

// ---- tests

using Test = bool (*)(Renderer& r, const Value& value, const Arguments& a);

bool equal(Renderer&, const Value& v, const Arguments& a) { return !a.positional.empty() && v == a.positional[0]; }
bool contained(Renderer& r, const Value& v, const Arguments& a) {
  if (a.positional.empty()) return false;
  if (v.is_string() && a.positional[0].is_string())
    return a.positional[0].string().find(v.string()) != std::string::npos;
  const List items = r.elements(a.positional[0]);
  return std::any_of(items.begin(), items.end(), [&](const Value& item) { return item == v; });
}

const std::map<std::string_view, Test> kTests = {
    {"defined", [](Renderer&, const Value& v, const Arguments&) { return !v.is_undefined(); }},
    {"undefined", [](Renderer&, const Value& v, const Arguments&) { return v.is_undefined(); }},
    {"none", [](Renderer&, const Value& v, const Arguments&) { return v.is_none(); }},
    {"boolean", [](Renderer&, const Value& v, const Arguments&) { return v.is_bool(); }},
    {"true", [](Renderer&, const Value& v, const Arguments&) { return v.is_bool() && v.truth(); }},
    {"false", [](Renderer&, const Value& v, const Arguments&) { return v.is_bool() && !v.truth(); }},
    {"integer", [](Renderer&, const Value& v, const Arguments&) { return v.is_integer(); }},
    {"float", [](Renderer&, const Value& v, const Arguments&) { return v.is_float(); }},
    {"number", [](Renderer&, const Value& v, const Arguments&) { return v.is_number(); }},
    {"string", [](Renderer&, const Value& v, const Arguments&) { return v.is_string(); }},
    {"mapping", [](Renderer&, const Value& v, const Arguments&) { return v.is_dict(); }},
    {"iterable", [](Renderer&, const Value& v,
                    const Arguments&) { return v.is_list() || v.is_dict() || v.is_string() || v.is_undefined(); }},
    {"sequence", [](Renderer&, const Value& v,
                    const Arguments&) { return v.is_list() || v.is_dict() || v.is_string() || v.is_undefined(); }},
    {"callable", [](Renderer&, const Value& v, const Arguments&) { return v.is_function(); }},
    {"even", [](Renderer&, const Value& v, const Arguments&) { return v.is_integer() && v.integer() % 2 == 0; }},
    {"odd", [](Renderer&, const Value& v, const Arguments&) { return v.is_integer() && v.integer() % 2 != 0; }},
    {"divisibleby",
     [](Renderer&, const Value& v, const Arguments& a) {
       const std::int64_t by = integer_or(a.find(0, "num"), 0);
       if (by == 0 || !v.is_integer()) template_error("divisibleby: expected whole numbers other than 0");
       return by == -1 || v.integer() % by == 0;
     }},
    {"lower",
     [](Renderer&, const Value& v, const Arguments&) {
       return v.is_string() && lower(v.string()) == v.string() && upper(v.string()) != v.string();
     }},
    {"upper",
     [](Renderer&, const Value& v, const Arguments&) {
       return v.is_string() && upper(v.string()) == v.string() && lower(v.string()) != v.string();
     }},
    {"equalto", equal},
    {"eq", equal},
    {"ne", [](Renderer& r, const Value& v, const Arguments& a) { return !equal(r, v, a); }},
    {"in", contained},
};

}  // namespace

const std::map<std::string, Function, std::less<>>& functions() {
  static const std::map<std::string, Function, std::less<>> all = {
      {"range",
       [](Renderer& r, const Arguments& a) {
         const std::size_t given = a.positional.size();
         if (given == 0) template_error("range() without its end");
         const std::int64_t begin = given > 1 ? integer_or(&a.positional[0], 0) : 0;
         const std::int64_t end = integer_or(&a.positional[given > 1 ? 1 : 0], 0);
         const std::int64_t stride = given > 2 ? integer_or(&a.positional[2], 1) : 1;
         if (stride == 0) template_error("range() with a step of 0");
         List items;
         for (std::int64_t i = begin; stride > 0 ? i < end : i > end;) {
           if (static_cast<std::int64_t>(items.size()) >= kMostInRange)
             template_error(fmt::format("a range of more than {} numbers", kMostInRange));
           items.emplace_back(i);
           if (__builtin_add_overflow(i, stride, &i)) break;
         }
         return r.list(std::move(items));
       }},
      {"namespace",
       [](Renderer&, const Arguments& a) {
         Dict space;
         space.is_namespace = true;
         for (const Value& from : a.positional)
           if (from.is_dict())
             for (const auto& [name, value] : from.dict().entries) space.set(name, value);
         for (const auto& [name, value] : a.named) space.set(name, value);
         return Value(std::move(space));
       }},
      {"dict",
       [](Renderer&, const Arguments& a) {
         Dict dict;
         for (const Value& from : a.positional)
           if (from.is_dict())
             for (const auto& [name, value] : from.dict().entries) dict.set(name, value);
         for (const auto& [name, value] : a.named) dict.set(name, value);
         return Value(std::move(dict));
       }},
      {"raise_exception",
       [](Renderer& r, const Arguments& a) -> Value {
         template_error(a.positional.empty() ? "the template refuses these messages" : r.to_string(a.positional[0]));
       }},
      {"strftime_now",
       [](Renderer& r, const Arguments& a) {
         const std::string& format = string_of(a.find(0, "format"), "strftime_now");
         const std::time_t now = r.now();
         std::tm parts{};
         ::localtime_r(&now, &parts);
         char text[256];
         return r.text(std::string(text, std::strftime(text, sizeof text, format.c_str(), &parts)));
       }},
  };
  return all;
}

std::optional<Value> method(const Value& object, std::string_view name) {
  const auto bound = [&](const std::map<std::string_view, Method>& methods) -> std::optional<Value> {
    const auto at = methods.find(name);
    if (at == methods.end()) return std::nullopt;
    return Value(Function([object, call = at->second](Renderer& r, const Arguments& a) { return call(r, object, a); }));
  };
  if (object.is_string()) return bound(kTextMethods);
  if (object.is_dict()) return bound(kDictMethods);
  return std::nullopt;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = next_utf8(text, at).length;
    out.push_back(text.substr(at, length));
    at += length;
  }
  return out;
}

std::string_view strip(std::string_view text, const std::string* set, bool left, bool right) {
  const auto strips = [&](std::string_view letter) {
    if (set) return set->find(letter) != std::string::npos;
    const char32_t code = next_utf8(letter, 0).code;
    return is_white_space(code) || (code >= 0x1C && code <= 0x1F);
  };
  while (left && !text.empty()) {
    const std::size_t length = next_utf8(text, 0).length;
    if (!strips(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!strips(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

Value Renderer::filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto at = kFilters.find(name);
  if (at == kFilters.end()) throw Error(ErrorCode::unsupported, fmt::format("there is no filter {}", quote(name)));
  return at->second(*this, value, arguments);
}

bool Renderer::test(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto at = kTests.find(name);
  if (at == kTests.end()) throw Error(ErrorCode::unsupported, fmt::format("there is no test {}", quote(name)));
  return at->second(*this, value, arguments);
}

}  // namespace lowp::text::jinja
