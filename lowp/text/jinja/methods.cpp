// Methods of texts and dicts, as Python has them.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "lowp/base/utf8.h"
#include "lowp/text/jinja/library.h"

namespace lowp::text::jinja {
namespace {

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

}  // namespace

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

}  // namespace lowp::text::jinja
