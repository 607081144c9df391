// Text that ends a generation.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lowp::text {

/// Passes text on until a stop string is complete; what may be the beginning of one is held back.
class StopText {
 public:
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  /// What may be shown now.
  std::string push(std::string_view text);
  /// At the end: what was held back.
  std::string flush() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lowp::text
