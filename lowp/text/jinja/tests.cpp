// Tests (`is defined`), as Jinja has them.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lowp/base/error.h"
#include "lowp/text/jinja/library.h"

namespace lowp::text::jinja {
namespace {

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

bool Renderer::test(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto at = kTests.find(name);
  if (at == kTests.end()) throw Error(ErrorCode::unsupported, fmt::format("there is no test {}", quote(name)));
  return at->second(*this, value, arguments);
}

}  // namespace lowp::text::jinja
