#include "lowp/eval/windows.h"

#include <algorithm>

namespace lowp::eval {

std::vector<Window> disjoint_windows(std::span<const std::int32_t> ids, std::int64_t context) {
  std::vector<Window> windows;
  const auto size = static_cast<std::size_t>(context);
  for (std::size_t at = 0; at + size <= ids.size(); at += size)
    windows.push_back({{ids.begin() + at, ids.begin() + at + size}, 1, std::nullopt});
  return windows;
}

std::vector<Window> half_windows(std::span<const std::int32_t> ids, std::int64_t context,
                                 std::optional<std::int32_t> bos) {
  std::vector<Window> windows = disjoint_windows(ids, context);
  for (Window& window : windows) {
    if (bos) window.tokens.front() = *bos;
    window.first = static_cast<std::size_t>(context / 2) + 1;
  }
  return windows;
}

std::vector<Window> rolling_windows(std::span<const std::int32_t> ids, std::int64_t context, std::int32_t prefix) {
  std::vector<Window> windows;
  const auto size = static_cast<std::size_t>(context);
  for (std::size_t done = 0; done < ids.size();) {
    const std::size_t count = std::min(ids.size() - done, size), end = done + count;
    Window window;
    if (done == 0) {
      window.tokens.push_back(prefix);
      window.tokens.insert(window.tokens.end(), ids.begin(), ids.begin() + (end - 1));
    } else {
      // Full windows: what comes before the scored tokens is context.
      window.tokens.assign(ids.begin() + (end - size - 1), ids.begin() + (end - 1));
    }
    window.first = window.tokens.size() - count + 1;
    window.last = ids[end - 1];
    windows.push_back(std::move(window));
    done = end;
  }
  return windows;
}

}  // namespace lowp::eval
