// Where and when numbers were measured.
#pragma once

#include <string>

namespace lowp::report {

struct Machine {
  std::string cpu;  // model name
  int threads = 0;
  std::string date;     // "2026-01-31 12:00 UTC"
  std::string version;  // of lowp
};

/// This machine, now.
Machine this_machine(const std::string& version);

/// "measured on <cpu>, N threads, <date>, lowp <version>".
std::string about(const Machine& machine);

}  // namespace lowp::report
