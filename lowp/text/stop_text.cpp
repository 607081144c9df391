#include "lowp/text/stop_text.h"

#include <algorithm>

namespace lowp::text {

std::string StopText::push(std::string_view text) {
  if (stopped_) return {};
  if (stops_.empty()) return std::string(text);
  held_ += text;
  std::size_t end = std::string::npos, safe = held_.size();
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > 0; --n)
      if (held_.ends_with(std::string_view(stop).substr(0, n))) {
        safe = std::min(safe, held_.size() - n);
        break;
      }
  }
  stopped_ = end != std::string::npos;
  std::string shown = held_.substr(0, stopped_ ? end : safe);
  held_.erase(0, stopped_ ? std::string::npos : safe);
  return shown;
}

}  // namespace lowp::text
