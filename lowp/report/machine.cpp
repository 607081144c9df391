#include "lowp/report/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <fstream>

#include "lowp/base/threads.h"

namespace lowp::report {
namespace {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (const auto colon = line.find(": "); line.starts_with("model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  return "an unknown CPU";
}

}  // namespace

Machine this_machine(const std::string& version) {
  return {cpu_model(), thread_count(), fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr))), version};
}

std::string about(const Machine& machine) {
  return fmt::format("measured on {}, {} thread{}, {}, lowp {}", machine.cpu, machine.threads,
                     machine.threads == 1 ? "" : "s", machine.date, machine.version);
}

}  // namespace lowp::report
