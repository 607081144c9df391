// Where and when numbers were measured.
#pragma once

#include <cstdint>
#include <string>

namespace lowp::report {

struct Machine {
  std::string cpu;  // as cpu_model()
  int threads = 0;
  std::string date;     // "2026-01-31 12:00 UTC"
  std::string version;  // of lowp
};

/// Name, family and model of the CPU, e.g. "Intel(R) Xeon(R) Processor (family 6, model 167)".
std::string cpu_model();

/// Largest resident memory of this process so far, in bytes; 0 if the system does not say.
std::uint64_t peak_resident_bytes();

/// This machine, now.
Machine this_machine(const std::string& version);

/// "measured on <cpu>, N threads, <date>, lowp <version>".
std::string about(const Machine& machine);

}  // namespace lowp::report
