// What a benchmark runs on: its clock, and its limits measured at the time of the run.   <- ADD A DEVICE
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace lowp::bench {

/// A rate that bounds work on a device.
struct Limit {
  enum class Of { bytes, flop } of = Of::bytes;
  std::string name;     // e.g. "copy"
  std::string meaning;  // for people
};

class Device {
 public:
  virtual ~Device() = default;

  /// "cpu" or "cuda:0": what --device says.
  virtual std::string name() const = 0;
  /// The machine in words: model, threads, instruction sets.
  virtual std::string description() const = 0;
  /// The limits that this machine has, in the order of the table.
  virtual std::span<const Limit> limits() const = 0;
  /// Measures a limit of limits() now, in a few tens of milliseconds at most: bytes/s (a copy counts what it reads and
  /// what it writes) or operations/s.
  /// `bytes`: what the measured work moves, for limits that depend on it; 0: as much as shows the limit best.
  virtual double probe(std::string_view limit, std::uint64_t bytes = 0) = 0;
  /// Seconds that one call of `run` takes on the device, caches in the state that a stream of such calls finds.
  virtual double seconds(const std::function<void()>& run) = 0;
};

}  // namespace lowp::bench
