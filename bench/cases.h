// What can be measured: a case is one call of a kernel on one shape.   <- ADD A FAMILY OF CASES in cases.cpp
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/device.h"
#include "bench/row.h"
#include "lowp/tensor/dtype.h"

namespace lowp::bench {

/// What casts are measured on, unless something else is asked for: a quarter of a gigabyte of bf16, beyond the caches
/// of anything but the largest servers.
inline constexpr std::int64_t kCastRows = 16384, kCastColumns = 8192;

struct Effort {
  int least = 5, most = 25;  // samples
  double seconds = 1;        // no more samples after this long, once there are `least`
};

struct Case {
  std::string op, recipe;
  std::int64_t m = 0, n = 0, k = 0;
  std::uint64_t bytes = 0, flop = 0;  // as in Row
  std::string limit_name;
  /// Makes inputs and outputs and returns the call to time, which owns them: cases are prepared one at a time.
  std::function<std::function<void()>()> prepare;
  /// Or, for cases that are timed in another way and beside a peer: fills seconds, samples, limit and the peer's
  /// fields.
  std::function<void(Row& row, Device& device, const Effort& effort)> measure = nullptr;
};

/// Which cases are wanted.
struct Selection {
  std::vector<std::string> recipes;     // formats or recipes; empty: the family's own choice
  DType dtype = DType::bf16;            // of high-precision operands
  std::optional<std::int64_t> m, n, k;  // where the family's shape has them
};

/// Names of the families that a device has: "cast", ...
std::vector<std::string> families(const Device& device);

/// The cases of a family. Throws Error(usage) naming the known ones if the device has none of that name.
std::vector<Case> cases(const std::string& family, const Device& device, const Selection& selection);

/// Prepares a case, warms up, and measures it: before each sample the limit is probed, because machines drift.
Row measure(const Case& what, Device& device, const Effort& effort);

/// A row for each of the device's limits, op "probe".
std::vector<Row> probe_limits(Device& device);

}  // namespace lowp::bench
