#include "lowp/text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/base/utf8.h"

namespace lowp::text::jinja {
namespace {

constexpr int kMaxTextDepth = 100;  // of values within values, when they become text

void check_size(const std::string& out, std::size_t most) {
  if (out.size() > most) fail(ErrorCode::bad_input, "the template makes more than {} bytes of text", most);
}

void check_depth(int depth) {
  if (depth > kMaxTextDepth)
    fail(ErrorCode::bad_input, "a value in the template is nested more than {} deep", kMaxTextDepth);
}

void append_repr(std::string& out, const Value& value, int depth, std::size_t most);

void append_string_repr(std::string& out, const std::string& text) {
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  out += quote;
  for (const char c : text) {
    if (c == quote || c == '\\')
      out += {'\\', c};
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  out += quote;
}

void append_string(std::string& out, const Value& value, int depth, std::size_t most) {
  check_depth(depth);
  if (value.is_undefined()) return;
  if (value.is_none())
    out += "None";
  else if (value.is_bool())
    out += value.truth() ? "True" : "False";
  else if (value.is_integer())
    out += std::to_string(value.integer());
  else if (value.is_float())
    out += float_text(value.number());
  else if (value.is_string())
    out += value.string();
  else if (value.is_list()) {
    out += '[';
    bool first = true;
    for (const Value& item : value.list()) {
      if (!std::exchange(first, false)) out += ", ";
      append_repr(out, item, depth + 1, most);
    }
    out += ']';
  } else if (value.is_dict()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.dict().entries) {
      if (!std::exchange(first, false)) out += ", ";
      append_string_repr(out, key);
      out += ": ";
      append_repr(out, item, depth + 1, most);
    }
    out += '}';
  } else {
    out += "<function>";
  }
  check_size(out, most);
}

void append_repr(std::string& out, const Value& value, int depth, std::size_t most) {
  if (value.is_string())
    append_string_repr(out, value.string());
  else if (value.is_undefined())
    out += "Undefined";
  else
    append_string(out, value, depth, most);
  check_size(out, most);
}

void append_json_string(std::string& out, const std::string& text, bool ensure_ascii) {
  out += Json(text).dump(-1, ' ', ensure_ascii, Json::error_handler_t::replace);
}

void append_json(std::string& out, const Value& value, const JsonStyle& style, int depth, std::size_t most) {
  check_depth(depth);
  const auto new_line = [&](int level) {
    if (style.indent >= 0) {
      out += '\n';
      out.append(static_cast<std::size_t>(style.indent) * static_cast<std::size_t>(level), ' ');
    }
  };
  std::string separator = style.item_separator;
  if (style.indent >= 0 && separator == ", ") separator = ",";
  if (value.is_undefined() || value.is_function())
    fail(ErrorCode::bad_input, "tojson: a value of type {} has no JSON", value.type());
  if (value.is_none())
    out += "null";
  else if (value.is_bool())
    out += value.truth() ? "true" : "false";
  else if (value.is_integer())
    out += std::to_string(value.integer());
  else if (value.is_float())
    out += std::isnan(value.number())   ? "NaN"
           : std::isinf(value.number()) ? value.number() > 0 ? "Infinity" : "-Infinity"
                                        : float_text(value.number());
  else if (value.is_string())
    append_json_string(out, value.string(), style.ensure_ascii);
  else if (value.is_list()) {
    out += '[';
    bool first = true;
    for (const Value& item : value.list()) {
      if (!std::exchange(first, false)) out += separator;
      new_line(depth + 1);
      append_json(out, item, style, depth + 1, most);
    }
    if (!first) new_line(depth);
    out += ']';
  } else {
    std::vector<const std::pair<std::string, Value>*> entries;
    for (const auto& entry : value.dict().entries) entries.push_back(&entry);
    if (style.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return a->first < b->first; });
    out += '{';
    bool first = true;
    for (const auto* entry : entries) {
      if (!std::exchange(first, false)) out += separator;
      new_line(depth + 1);
      append_json_string(out, entry->first, style.ensure_ascii);
      out += style.key_separator;
      append_json(out, entry->second, style, depth + 1, most);
    }
    if (!first) new_line(depth);
    out += '}';
  }
  check_size(out, most);
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name == key) return &value;
  return nullptr;
}

void Dict::set(const std::string& key, Value value) {
  for (auto& [name, old] : entries)
    if (name == key) {
      old = std::move(value);
      return;
    }
  entries.emplace_back(key, std::move(value));
}

const Value* Arguments::find(std::size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

Value Value::from_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<std::int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) return json.get<double>();
      return json.get<std::int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::array: {
      List list;
      for (const Json& item : json) list.push_back(from_json(item));
      return list;
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.entries.emplace_back(key, from_json(item));
      return dict;
    }
    default:
      return nullptr;
  }
}

std::int64_t Value::integer() const {
  return is_bool() ? static_cast<std::int64_t>(std::get<bool>(value_)) : std::get<std::int64_t>(value_);
}

double Value::number() const { return is_float() ? std::get<double>(value_) : static_cast<double>(integer()); }

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return !list().empty();
  if (is_dict()) return dict().is_namespace || !dict().entries.empty();
  return true;
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number())
    return is_float() || other.is_float() ? number() == other.number() : integer() == other.integer();
  if (value_.index() != other.value_.index()) return false;
  if (is_undefined() || is_none()) return true;
  if (is_string()) return string() == other.string();
  if (is_list()) return list() == other.list();
  if (is_dict()) {
    if (dict().entries.size() != other.dict().entries.size()) return false;
    return std::all_of(dict().entries.begin(), dict().entries.end(), [&](const auto& entry) {
      const Value* found = other.dict().find(entry.first);
      return found && entry.second == *found;
    });
  }
  return std::get<std::shared_ptr<Function>>(value_) == std::get<std::shared_ptr<Function>>(other.value_);
}

const char* Value::type() const {
  static constexpr const char* kNames[] = {"undefined", "none", "bool", "int",     "float",
                                           "str",       "list", "dict", "function"};
  return kNames[value_.index()];
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);  // shortest; exponents as in "1e+20"
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string to_string(const Value& value, std::size_t most) {
  std::string out;
  append_string(out, value, 0, most);
  return out;
}

std::string to_json(const Value& value, const JsonStyle& style, std::size_t most) {
  std::string out;
  append_json(out, value, style, 0, most);
  return out;
}

}  // namespace lowp::text::jinja
