// Functions that a template may call by name.
#include <fmt/format.h>

#include <ctime>

#include "lowp/text/jinja/library.h"

namespace lowp::text::jinja {
namespace {

constexpr std::int64_t kMostInRange = 100'000;

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

}  // namespace lowp::text::jinja
