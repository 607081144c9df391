#include "lowp/base/partial.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace lowp {

std::string claim_partial(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr std::string_view kMark = ".partial-";
  std::error_code ignored;
  const fs::path target(path), parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const std::string prefix = target.filename().string() + std::string(kMark);
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    int pid = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), end, pid);
    if (parsed.ec != std::errc() || parsed.ptr != end || pid <= 0) continue;
    const bool runs = ::kill(pid, 0) == 0 || errno == EPERM;
    if (!runs || pid == ::getpid()) fs::remove_all(entry.path(), ignored);
  }
  return path + std::string(kMark) + std::to_string(::getpid());
}

}  // namespace lowp
