#include "lowp/report/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <charconv>
#include <ctime>
#include <fstream>
#include <string_view>

#include "lowp/base/threads.h"

namespace lowp::report {
namespace {

// The value of a key of /proc/cpuinfo, of the first processor; "" if it is not there.
std::string cpu_info(std::string_view key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    if (line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1) == key) return line.substr(colon + 2);
  }
  return "";
}

}  // namespace

// Virtual machines often hide the name; family and model tell more.
std::string cpu_model() {
  const std::string name = cpu_info("model name"), family = cpu_info("cpu family"), model = cpu_info("model");
  if (name.empty()) return "an unknown CPU";
  return family.empty() ? name : fmt::format("{} (family {}, model {})", name, family, model);
}

std::uint64_t peak_resident_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("VmHWM:")) continue;
    const auto digit = line.find_first_of("0123456789");
    std::uint64_t kib = 0;
    if (digit != std::string::npos) std::from_chars(line.data() + digit, line.data() + line.size(), kib);
    return kib * 1024;
  }
  return 0;
}

Machine this_machine(const std::string& version) {
  return {cpu_model(), thread_count(), fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr))), version};
}

std::string about(const Machine& machine) {
  return fmt::format("measured on {}, {} thread{}, {}, lowp {}", machine.cpu, machine.threads,
                     machine.threads == 1 ? "" : "s", machine.date, machine.version);
}

}  // namespace lowp::report
